"""Fixtures of models/tests/encoders.rs: tiny models of transformers with random weights.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    OMP_NUM_THREADS=1 python tests/reference/encoders.py

Writes models/tests/fixtures/{bert,bert_decoder,vit,clip}.safetensors. The weights have the names of
the published checkpoints (`save_pretrained` gives them); inputs and expected outputs lie beside them
under `in.` and `out.`; the metadata hold the configuration and `gap`, the largest difference between
the outputs in 32 and in 64 bits (the expected ones are those in 64, stored in 32).
"""

import json
import pathlib
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    CLIPTextConfig,
    CLIPTextModel,
    ViTConfig,
    ViTForImageClassification,
)

FIXTURES = pathlib.Path(__file__).parents[2] / "models" / "tests" / "fixtures"


def spread(model, seed):
    """Random weights of a size at which every part of the model shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            norm = parameter.dim() == 1 and bool((parameter == 1).all())
            parameter.copy_(1 + 0.2 * noise if norm else 0.25 * noise)
    return model.eval()


def write(name, model, config, inputs, run):
    with torch.no_grad():
        low = run(model)
        high = run(model.double())
    gap = max((low[key].double() - high[key]).abs().max().item() for key in low)
    with tempfile.TemporaryDirectory() as folder:
        model.float().save_pretrained(folder)
        tensors = load_file(pathlib.Path(folder) / "model.safetensors")
    tensors |= {"in." + key: value for key, value in inputs.items()}
    tensors |= {"out." + key: value.float() for key, value in high.items()}
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    path = FIXTURES / f"{name}.safetensors"
    save_file(tensors, path, {"config": json.dumps(config), "gap": f"{gap:.3e}"})
    print(f"{path.name}: {path.stat().st_size} bytes, gap {gap:.1e}")


def hidden_states(output):
    return {f"hidden.{i}": state for i, state in enumerate(output.hidden_states)}


def bert():
    config = dict(
        vocab_size=31,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        hidden_act="gelu",
        max_position_embeddings=12,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
    )
    model = spread(BertForMaskedLM(BertConfig(**config)), 1)
    generator = torch.Generator().manual_seed(2)
    inputs = dict(
        input_ids=torch.randint(31, (3, 7), generator=generator),
        token_type_ids=torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0] * 7, [0, 0, 1, 1, 1, 0, 0]]),
        attention_mask=torch.tensor([[1] * 7, [1] * 6 + [0], [1] * 5 + [0] * 2]),
    )

    def run(model):
        output = model(**inputs, output_hidden_states=True)
        plain = model(inputs["input_ids"])
        return hidden_states(output) | {"logits": output.logits, "logits_plain": plain.logits}

    write("bert", model, config, inputs, run)


def bert_decoder():
    config = dict(
        vocab_size=29,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        hidden_act="relu",
        max_position_embeddings=12,
        type_vocab_size=1,
        layer_norm_eps=1e-6,
        is_decoder=True,
        add_cross_attention=True,
    )
    # transformers takes the width of the encoder states from the decoder's own width.
    model = spread(BertLMHeadModel(BertConfig(**config)), 3)
    generator = torch.Generator().manual_seed(4)
    inputs = dict(
        input_ids=torch.randint(29, (2, 6), generator=generator),
        attention_mask=torch.tensor([[1] * 6, [1] * 4 + [0] * 2]),
        encoder_hidden_states=torch.randn(2, 5, 16, generator=generator),
        encoder_attention_mask=torch.tensor([[1] * 5, [1] * 3 + [0] * 2]),
    )

    def run(model):
        dtype = next(model.parameters()).dtype
        states = inputs["encoder_hidden_states"].to(dtype)
        output = model(
            **(inputs | {"encoder_hidden_states": states}),
            output_hidden_states=True,
            use_cache=False,
        )
        alone = model(inputs["input_ids"], use_cache=False)
        return hidden_states(output) | {"logits": output.logits, "logits_alone": alone.logits}

    write("bert_decoder", model, config, inputs, run)


def vit():
    config = dict(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        hidden_act="gelu_new",
        image_size=12,
        patch_size=4,
        num_channels=3,
        qkv_bias=True,
        layer_norm_eps=1e-12,
    )
    model = spread(ViTForImageClassification(ViTConfig(**config, num_labels=5)), 5)
    generator = torch.Generator().manual_seed(6)
    inputs = dict(pixels=torch.randn(2, 3, 12, 12, generator=generator))

    def run(model):
        dtype = next(model.parameters()).dtype
        pixels = inputs["pixels"].to(dtype)
        output = model(pixels, output_hidden_states=True)
        return hidden_states(output) | {
            "last": model.vit(pixels).last_hidden_state,
            "logits": output.logits,
        }

    write("vit", model, config | {"num_labels": 5}, inputs, run)


def clip():
    config = dict(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=9,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        eos_token_id=30,
    )
    extra = dict(bos_token_id=29, pad_token_id=0)
    model = spread(CLIPTextModel(CLIPTextConfig(**config, **extra)), 7)
    inputs = dict(
        input_ids=torch.tensor([[29, 4, 9, 17, 22, 3, 30], [29, 8, 30, 30, 30, 30, 30]]),
        attention_mask=torch.tensor([[1] * 7, [1] * 3 + [0] * 4]),
    )

    def run(model):
        output = model(**inputs, output_hidden_states=True)
        plain = model(inputs["input_ids"])
        return hidden_states(output) | {
            "last": output.last_hidden_state,
            "pooled": output.pooler_output,
            "last_plain": plain.last_hidden_state,
        }

    write("clip", model, config, inputs, run)


if __name__ == "__main__":
    torch.set_num_threads(1)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for make in (bert, bert_decoder, vit, clip):
        make()
