"""Tiny folders as Salesforce/blip-image-captioning-base and -large, for checkpoints.py.

Besides the outputs of every layer there are captions of the former, as transformers' `generate` finds them: the
prompt, what follows it to a length of 10, and -1 after the end.
"""

import torch
from torch.nn import functional as F
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, LogitsProcessor

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

# One of few with which captions end and differ and have no near rivals.
SEED = 1790


class Shake(LogitsProcessor):
    """Noise on the scores: what is found in spite of it has no near rival."""

    def __init__(self, seed, size):
        self.generator = torch.Generator().manual_seed(seed)
        self.size = size

    def __call__(self, input_ids, scores):
        noise = torch.rand(scores.shape, generator=self.generator, dtype=scores.dtype)
        return scores + self.size * (2 * noise - 1)


def captions(model, pictures, prompt, end, **options):
    """Ids with the prompt; -1 follows the end."""

    def generate(**more):
        found = model.generate(
            pixel_values=pictures,
            input_ids=None if prompt is None else prompt.clone(),
            max_length=10,
            do_sample=False,
            **options,
            **more,
        )
        found = found.masked_fill((found == end).cumsum(1) - (found == end).long() > 0, -1)
        return F.pad(found, (0, 10 - found.shape[1]), value=-1)

    chosen = generate()
    for seed in range(8):
        again = generate(logits_processor=[Shake(seed, 1e-3)])
        assert torch.equal(chosen, again), "choose weights without near rivals"
    if options["num_beams"] > 1:
        again = generate(early_stopping="never")
        assert torch.equal(chosen, again), "choose weights with which the search has one result"
    return chosen


def run(model, inputs):
    vision = model.vision_model(inputs["pixels"], output_hidden_states=True)
    text = model.text_decoder(
        inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        encoder_hidden_states=vision.last_hidden_state,
        output_hidden_states=True,
    )
    large = model.vision_model(inputs["pixels_large"], interpolate_pos_encoding=True)
    states = hidden_states(vision, "vision.") | hidden_states(text, "text.")
    return states | {
        "vision.last": vision.last_hidden_state,
        "text.logits": text.logits,
        "vision.last_large": large.last_hidden_state,
    }


def write():
    small()
    large()


def small():
    path = folder("blip")
    pieces = vocabularies.lower_case_pieces(vocabularies.CAPTION, ["[DEC]", "[ENC]"])
    start, end = len(pieces) - 2, 3
    text = dict(
        vocab_size=len(pieces),
        hidden_size=12,
        encoder_hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=16,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.02,
        projection_dim=12,
        bos_token_id=start,
        eos_token_id=2,
        pad_token_id=0,
        sep_token_id=end,
        is_decoder=True,
        use_cache=True,
    )
    vision = dict(
        hidden_size=16,
        intermediate_size=24,
        projection_dim=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
        attention_dropout=0.0,
        initializer_range=0.02,
    )
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=12)
    model = spread(BlipForConditionalGeneration(config), SEED, 1.3)
    with torch.no_grad():
        model.text_decoder.bert.embeddings.position_embeddings.weight.mul_(2)  # or else few words
        bias = model.text_decoder.cls.predictions.bias
        bias[end] += 3.5  # or else few captions end
        bias[[0, 1, 2, 4, start, start + 1]] -= 9.0
    model.save_pretrained(path)
    (path / "generation_config.json").unlink()  # the published folder has none

    def older(tensors):
        words = tensors["text_decoder.bert.embeddings.word_embeddings.weight"]
        head = "text_decoder.cls.predictions."
        return tensors | {
            "text_decoder.bert.embeddings.position_ids": positions(16),
            head + "decoder.weight": words.clone(),
            head + "decoder.bias": tensors[head + "bias"].clone(),
        }

    rewrite(path / "model.safetensors", older)
    written = dict(
        architectures=["BlipForConditionalGeneration"],
        image_text_hidden_size=256,
        initializer_factor=1.0,
        logit_scale_init_value=2.6592,
        model_type="blip",
        projection_dim=12,
        text_config=LEGACY | dict(model_type="blip_text_model", initializer_factor=1.0) | text,
        torch_dtype="float32",
        transformers_version=None,
        vision_config=LEGACY
        | dict(
            bos_token_id=None,
            dropout=0.0,
            eos_token_id=None,
            initializer_factor=1.0,
            model_type="blip_vision_model",
            num_channels=3,
            pad_token_id=None,
        )
        | vision,
    )
    write_json(path / "config.json", written)
    processor = dict(
        do_normalize=True,
        do_rescale=True,
        do_resize=True,
        image_mean=CLIP_MEAN,
        image_processor_type="BlipImageProcessor",
        image_std=CLIP_STD,
        processor_class="BlipProcessor",
        resample=3,
        rescale_factor=0.00392156862745098,
        size={"height": 16, "width": 16},
    )
    write_json(path / "preprocessor_config.json", processor)
    vocabularies.write_vocabulary(path, pieces)
    settings = vocabularies.bert_tokenizer_settings(
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=512,
        name_or_path="bert-base-uncased",
        processor_class="BlipProcessor",
        special_tokens_map_file=None,
    )
    write_json(path / "tokenizer_config.json", settings)
    write_json(path / "special_tokens_map.json", vocabularies.special_tokens_of_bert())

    tokenizer = BertTokenizer.from_pretrained(path)
    prompts = ["a photo of", "the red dog"]
    generator = torch.Generator().manual_seed(118)
    inputs = dict(
        input_ids=torch.randint(5, start, (2, 8), generator=generator),
        attention_mask=torch.tensor([[1] * 8, [1] * 5 + [0] * 3]),
        prompt_ids=tokenizer(prompts, return_tensors="pt").input_ids,
    )
    inputs["input_ids"][:, 0] = start
    inputs |= pixels(119, pixels=(2, 3, 16, 16), pixels_large=(1, 3, 24, 24))

    model.double()
    images = inputs["pixels"].double()
    beams = dict(num_beams=3, length_penalty=1.0)
    chosen = {
        "greedy": captions(model, images, None, end, num_beams=1),
        "beams": captions(model, images, None, end, **beams),
        "greedy_prompted": captions(model, images, inputs["prompt_ids"], end, num_beams=1),
        "beams_prompted": captions(model, images, inputs["prompt_ids"], end, **beams),
    }
    model.float()
    found = [
        [pieces[id] for id in row if id >= 0] for rows in chosen.values() for row in rows.tolist()
    ]
    ended = [row[-1] == "[SEP]" for row in found]
    assert len({*map(tuple, found)}) >= 7, "choose weights with which captions differ"
    assert len({word for row in found for word in row}) >= 12, "choose weights with more words"
    assert any(ended[:2]) and any(ended[2:4]) and not all(ended), "choose weights that end some"
    write_outputs(path, model, inputs, run, chosen)


def large():
    """As Salesforce/blip-image-captioning-large: pictures seen by a wider and deeper encoder than the
    sentences; as save_pretrained writes it today, in bfloat16."""
    path = folder("blip-large")
    text = dict(
        vocab_size=40,
        hidden_size=8,
        encoder_hidden_size=24,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=38,
        sep_token_id=3,
    )
    vision = dict(
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=24,
        patch_size=8,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
    )
    config = BlipConfig(text_config=text, vision_config=vision)
    model = spread(BlipForConditionalGeneration(config), 1791)
    model = rounded(model, torch.bfloat16)
    model.bfloat16().save_pretrained(path)
    (path / "generation_config.json").unlink(missing_ok=True)
    model.float()
    generator = torch.Generator().manual_seed(120)
    inputs = dict(
        input_ids=torch.randint(4, 40, (2, 6), generator=generator),
        attention_mask=torch.tensor([[1] * 6, [1] * 4 + [0] * 2]),
    )
    inputs |= pixels(121, pixels=(2, 3, 24, 24), pixels_large=(1, 3, 32, 32))
    write_outputs(path, model, inputs, run)
