"""Fixtures of the tests that read published folders: tiny models of Hugging Face's libraries.

    pip install torch==2.15.0 transformers==5.23.0 diffusers==0.42.1 accelerate==1.15.0 \\
        tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6 pillow==13.0.0
    OMP_NUM_THREADS=1 python tests/reference/checkpoints.py

Writes the folders of models/tests/fixtures/checkpoints: each what `save_pretrained` or a download
gives, of random weights, and one file more, `reference.safetensors` (see published.py). It also writes
models/tests/fixtures/training (see training.py).

bert-mlm             as save_pretrained writes it, in shards
bert-bare            as bert-base-uncased: gamma and beta, position ids; without prefix; 16 bits
bert-classifier      as save_pretrained writes it
minilm               as sentence-transformers/all-MiniLM-L6-v2
vit-classifier       as google/vit-base-patch16-224
vit-bare             as save_pretrained writes it, in bfloat16
clip                 as openai/clip-vit-base-patch32
clip-text-projection as save_pretrained writes it
blip, blip-large     blip.py
sd1, sd2             pipelines.py
tokenizers, preprocess  vocabularies.py
"""

import warnings

import torch
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)
from transformers.utils import logging

import blip
import pipelines
import training
import vocabularies
from published import (
    CLIP_MEAN,
    CLIP_STD,
    LEGACY,
    folder,
    hidden_states,
    pixels,
    positions,
    rewrite,
    rounded,
    spread,
    write_json,
    write_outputs,
)

BERT = dict(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=12,
)


def bert_inputs(seed, vocabulary=40):
    """Ids of which none is that of the padding, and three lengths."""
    generator = torch.Generator().manual_seed(seed)
    return dict(
        input_ids=torch.randint(5, vocabulary, (3, 9), generator=generator),
        token_type_ids=torch.tensor([[0] * 4 + [1] * 5, [0] * 9, [0, 0, 1, 1, 1, 0, 0, 0, 0]]),
        attention_mask=torch.tensor([[1] * 9, [1] * 7 + [0] * 2, [1] * 5 + [0] * 4]),
    )


def bert_mlm():
    path = folder("bert-mlm")
    model = spread(BertForMaskedLM(BertConfig(**BERT, hidden_act="gelu")), 101)
    model.save_pretrained(path, max_shard_size="10KB")
    assert len(list(path.glob("model-*.safetensors"))) >= 2

    def run(model, inputs):
        output = model(**inputs, output_hidden_states=True)
        return hidden_states(output) | {"logits": output.logits}

    write_outputs(path, model, bert_inputs(102), run)


def bert_bare():
    path = folder("bert-bare")
    model = spread(BertModel(BertConfig(**BERT, hidden_act="gelu_new")), 103)
    model = rounded(model, torch.float16)
    model.half().save_pretrained(path)
    model.float()

    def older(tensors):
        names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, old in names.items():
            tensors = {key.replace(new, old): value for key, value in tensors.items()}
        return tensors | {"embeddings.position_ids": positions(12)}

    rewrite(path / "model.safetensors", older)
    config = dict(
        architectures=["BertModel"],
        attention_probs_dropout_prob=0.1,
        gradient_checkpointing=False,
        hidden_act="gelu_new",
        hidden_dropout_prob=0.1,
        initializer_range=0.02,
        layer_norm_eps=1e-12,
        model_type="bert",
        pad_token_id=0,
        position_embedding_type="absolute",
        transformers_version="4.6.0.dev0",
        type_vocab_size=2,
        use_cache=True,
    )
    write_json(path / "config.json", BERT | config)

    def run(model, inputs):
        output = model(**inputs, output_hidden_states=True)
        last, pooled = output.last_hidden_state, output.pooler_output
        return hidden_states(output) | {"last": last, "pooled": pooled}

    write_outputs(path, model, bert_inputs(104), run)


def bert_classifier():
    path = folder("bert-classifier")
    labels = dict(enumerate(["anger", "fear", "joy", "sadness", "surprise"]))
    config = BertConfig(
        **BERT,
        hidden_act="relu",
        id2label=labels,
        label2id={name: id for id, name in labels.items()},
    )
    model = spread(BertForSequenceClassification(config), 105)
    model.save_pretrained(path)

    def run(model, inputs):
        output = model(**inputs, output_hidden_states=True)
        return hidden_states(output) | {"logits": output.logits}

    write_outputs(path, model, bert_inputs(106), run)


def minilm():
    path = folder("minilm")
    longest = 12
    pieces = vocabularies.lower_case_pieces(vocabularies.WORDS)
    sizes = BERT | dict(vocab_size=len(pieces), max_position_embeddings=16)
    model = spread(BertModel(BertConfig(**sizes)), 107)
    model.save_pretrained(path)
    change = lambda tensors: tensors | {"embeddings.position_ids": positions(16)}
    rewrite(path / "model.safetensors", change)
    config = dict(
        _name_or_path="nreimers/MiniLM-L6-H384-uncased",
        architectures=["BertModel"],
        attention_probs_dropout_prob=0.1,
        gradient_checkpointing=False,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        initializer_range=0.02,
        layer_norm_eps=1e-12,
        model_type="bert",
        pad_token_id=0,
        position_embedding_type="absolute",
        transformers_version="4.8.2",
        type_vocab_size=2,
        use_cache=True,
    )
    write_json(path / "config.json", sizes | config)
    vocabularies.write_vocabulary(path, pieces)
    vocabularies.write_tokenizer_json(path, pieces, longest // 2)
    settings = vocabularies.bert_tokenizer_settings(
        name_or_path="nreimers/MiniLM-L6-H384-uncased", model_max_length=512
    )
    write_json(path / "tokenizer_config.json", settings)
    write_json(path / "special_tokens_map.json", vocabularies.special_tokens_of_bert())
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        dict(idx=i, name=str(i), path=place, type=f"sentence_transformers.models.{kind}")
        for i, (place, kind) in enumerate(kinds.items())
    ]
    write_json(path / "modules.json", modules)
    settings = dict(max_seq_length=longest, do_lower_case=False)
    write_json(path / "sentence_bert_config.json", settings)
    pooling = dict(
        word_embedding_dimension=16,
        pooling_mode_cls_token=False,
        pooling_mode_mean_tokens=True,
        pooling_mode_max_tokens=False,
        pooling_mode_mean_sqrt_len_tokens=False,
    )
    write_json(path / "1_Pooling" / "config.json", pooling)
    versions = dict(sentence_transformers="2.0.0", transformers="4.6.1", pytorch="1.8.1")
    write_json(path / "config_sentence_transformers.json", {"__version__": versions})
    write_json(path / "sentences.json", vocabularies.SENTENCES)

    tokenizer = BertTokenizer.from_pretrained(path)
    encoded = tokenizer(
        vocabularies.SENTENCES,
        padding=True,
        truncation="longest_first",
        max_length=longest,
        return_tensors="pt",
    )
    inputs = dict(ids=encoded.input_ids, mask=encoded.attention_mask)
    assert inputs["ids"].shape == (4, longest) and (inputs["ids"] == 1).any()

    def run(model, inputs):
        states = model(inputs["ids"], attention_mask=inputs["mask"]).last_hidden_state
        mask = inputs["mask"][..., None].to(states.dtype)
        return {"embeddings": F.normalize((states * mask).sum(1) / mask.sum(1), dim=1)}

    write_outputs(path, model, inputs, run)


VIT = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    image_size=16,
    patch_size=4,
)


def vit_classifier():
    path = folder("vit-classifier")
    labels = {"0": "tabby, tabby cat", "1": "tiger cat", "2": "Persian cat"}
    config = dict(
        _name_or_path="google/vit-base-patch16-224",
        architectures=["ViTForImageClassification"],
        attention_probs_dropout_prob=0.0,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        id2label=labels,
        initializer_range=0.02,
        label2id={name: int(id) for id, name in labels.items()},
        layer_norm_eps=1e-12,
        model_type="vit",
        num_channels=3,
        qkv_bias=True,
        transformers_version="4.13.0.dev0",
    )
    model = spread(ViTForImageClassification(ViTConfig(**VIT, num_labels=3)), 109)
    model.save_pretrained(path)
    write_json(path / "config.json", VIT | config)
    processor = dict(
        do_normalize=True,
        do_rescale=True,
        do_resize=True,
        image_mean=[0.5, 0.5, 0.5],
        image_processor_type="ViTImageProcessor",
        image_std=[0.5, 0.5, 0.5],
        resample=2,
        rescale_factor=0.00392156862745098,
        size={"height": 16, "width": 16},
    )
    write_json(path / "preprocessor_config.json", processor)

    def run(model, inputs):
        output = model(inputs["pixels"], output_hidden_states=True)
        large = model.vit(inputs["pixels_large"], interpolate_pos_encoding=True)
        return hidden_states(output) | {
            "last": model.vit(inputs["pixels"]).last_hidden_state,
            "logits": output.logits,
            "last_large": large.last_hidden_state,
        }

    inputs = pixels(110, pixels=(2, 3, 16, 16), pixels_large=(1, 3, 24, 32))
    write_outputs(path, model, inputs, run)


def vit_bare():
    path = folder("vit-bare")
    model = rounded(spread(ViTModel(ViTConfig(**VIT, qkv_bias=False)), 111), torch.bfloat16)
    model.bfloat16().save_pretrained(path)
    model.float()
    # As of older files: one size for both sides, nothing about the scale.
    processor = dict(
        do_normalize=True,
        do_resize=True,
        feature_extractor_type="ViTFeatureExtractor",
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        resample=2,
        size=16,
    )
    write_json(path / "preprocessor_config.json", processor)

    def run(model, inputs):
        output = model(inputs["pixels"], output_hidden_states=True)
        last, pooled = output.last_hidden_state, output.pooler_output
        return hidden_states(output) | {"last": last, "pooled": pooled}

    write_outputs(path, model, pixels(112, pixels=(2, 3, 16, 16)), run)


def clip():
    path = folder("clip")
    size = vocabularies.write_byte_pairs(path, 12)
    text = dict(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=12,
        vocab_size=size,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        attention_dropout=0.0,
        initializer_factor=1.0,
        initializer_range=0.02,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )
    vision = dict(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=3,
        image_size=16,
        patch_size=8,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        attention_dropout=0.0,
        initializer_factor=1.0,
        initializer_range=0.02,
    )
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    model = spread(CLIPModel(config), 113)
    with torch.no_grad():
        model.logit_scale.fill_(2.6592)
    model.save_pretrained(path)
    buffers = {
        "text_model.embeddings.position_ids": positions(12),
        "vision_model.embeddings.position_ids": positions(5),
    }
    rewrite(path / "model.safetensors", lambda tensors: tensors | buffers)
    written = dict(
        _name_or_path="clip-vit-base-patch32/",
        architectures=["CLIPModel"],
        initializer_factor=1.0,
        logit_scale_init_value=2.6592,
        model_type="clip",
        projection_dim=12,
        text_config=LEGACY
        | dict(bos_token_id=None, dropout=0.0, model_type="clip_text_model", projection_dim=12)
        | text,
        text_config_dict=None,
        torch_dtype="float32",
        transformers_version=None,
        vision_config=LEGACY
        | dict(
            bos_token_id=None,
            dropout=0.0,
            eos_token_id=None,
            model_type="clip_vision_model",
            pad_token_id=None,
            projection_dim=12,
        )
        | vision,
        vision_config_dict=None,
    )
    write_json(path / "config.json", written)
    processor = dict(
        crop_size=16,
        do_center_crop=True,
        do_normalize=True,
        do_resize=True,
        feature_extractor_type="CLIPFeatureExtractor",
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
        resample=3,
        size=16,
    )
    write_json(path / "preprocessor_config.json", processor)

    tokenizer = CLIPTokenizer.from_pretrained(path)
    texts = ["a photo of a cat", "The astronaut's riding a horse, on the moon!", "blurry"]
    encoded = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    inputs = dict(input_ids=encoded.input_ids, attention_mask=encoded.attention_mask)
    inputs |= pixels(114, pixels=(2, 3, 16, 16), pixels_large=(1, 3, 24, 24))

    def run(model, inputs):
        output = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pixel_values=inputs["pixels"],
        )
        text = model.text_model(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            output_hidden_states=True,
        )
        vision = model.vision_model(inputs["pixels"], output_hidden_states=True)
        large = model.get_image_features(inputs["pixels_large"], interpolate_pos_encoding=True)
        states = hidden_states(text, "text.") | hidden_states(vision, "vision.")
        return states | {
            "text.last": text.last_hidden_state,
            "text.pooled": text.pooler_output,
            "text_embeds": output.text_embeds,
            "vision.last": vision.last_hidden_state,
            "vision.pooled": vision.pooler_output,
            "image_embeds": output.image_embeds,
            "logits_per_image": output.logits_per_image,
            # Projected, not normalised.
            "image_embeds_large": large.pooler_output,
        }

    write_outputs(path, model, inputs, run)


def clip_text_projection():
    path = folder("clip-text-projection")
    end = 39  # not the largest id: tokens were added after it
    config = CLIPTextConfig(
        vocab_size=42,
        hidden_size=16,
        intermediate_size=24,
        projection_dim=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        hidden_act="gelu",
        bos_token_id=38,
        eos_token_id=end,
        pad_token_id=1,
    )
    model = spread(CLIPTextModelWithProjection(config), 115)
    model.save_pretrained(path)
    ids = [
        [38, 4, 41, 17, 22, 40, 9, 12, 5, 30, 31, end],
        [38, 8, 40, end] + [1] * 8,
        [38, 7, 7, 20, 3, end] + [end] * 6,
    ]

    def run(model, inputs):
        output = model(inputs["input_ids"], output_hidden_states=True)
        states = hidden_states(output, "text.")
        last, embeddings = output.last_hidden_state, output.text_embeds
        return states | {"text.last": last, "text_embeds": embeddings}

    write_outputs(path, model, dict(input_ids=torch.tensor(ids)), run)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for make in (
        bert_mlm,
        bert_bare,
        bert_classifier,
        minilm,
        vit_classifier,
        vit_bare,
        clip,
        clip_text_projection,
        blip.write,
    ):
        make()
    pipelines.write()
    vocabularies.tokenizers()
    vocabularies.preprocess()
    training.write()
