"""What checkpoints.py and the modules beside it share: folders as published.

A folder holds what `save_pretrained` writes, rewritten where published files differ from that (older
names, older keys), and `reference.safetensors`: inputs under `in.`, expected outputs under `out.`,
and in the metadata `gap`, the largest difference between the outputs in 32 and in 64 bits (the
expected ones are those in 64, stored in 32).
"""

import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file

FIXTURES = pathlib.Path(__file__).parents[2] / "models" / "tests" / "fixtures"
CHECKPOINTS = FIXTURES / "checkpoints"

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]

# What transformers 4 wrote of every part of a model, besides the keys of the part.
LEGACY = dict(
    _name_or_path="",
    add_cross_attention=False,
    architectures=None,
    bad_words_ids=None,
    begin_suppress_tokens=None,
    chunk_size_feed_forward=0,
    cross_attention_hidden_size=None,
    decoder_start_token_id=None,
    diversity_penalty=0.0,
    do_sample=False,
    early_stopping=False,
    encoder_no_repeat_ngram_size=0,
    exponential_decay_length_penalty=None,
    finetuning_task=None,
    forced_bos_token_id=None,
    forced_eos_token_id=None,
    id2label={"0": "LABEL_0", "1": "LABEL_1"},
    is_decoder=False,
    is_encoder_decoder=False,
    label2id={"LABEL_0": 0, "LABEL_1": 1},
    length_penalty=1.0,
    max_length=20,
    min_length=0,
    no_repeat_ngram_size=0,
    num_beam_groups=1,
    num_beams=1,
    num_return_sequences=1,
    output_attentions=False,
    output_hidden_states=False,
    output_scores=False,
    prefix=None,
    problem_type=None,
    pruned_heads={},
    remove_invalid_values=False,
    repetition_penalty=1.0,
    return_dict=True,
    return_dict_in_generate=False,
    sep_token_id=None,
    suppress_tokens=None,
    task_specific_params=None,
    temperature=1.0,
    tf_legacy_loss=False,
    tie_encoder_decoder=False,
    tie_word_embeddings=True,
    tokenizer_class=None,
    top_k=50,
    top_p=1.0,
    torch_dtype=None,
    torchscript=False,
    transformers_version="4.21.0.dev0",
    typical_p=1.0,
    use_bfloat16=False,
)


def spread(model, seed, size=1.0):
    """Random weights of a size at which every part of the model shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            norm = parameter.dim() == 1 and bool((parameter == 1).all())
            # Of three dimensions are only the tables of positions and the class token.
            row = parameter.shape[2:] if parameter.dim() == 3 else parameter.shape[1:]
            fan_in = row.numel() if parameter.dim() > 1 else 16
            parameter.copy_(1 + 0.2 * noise if norm else noise * size * fan_in**-0.5)
    return model.eval()


def rounded(model, dtype):
    """The model with the weights that a file in `dtype` holds."""
    return model.to(dtype).float().eval()


def folder(name):
    """An empty folder for a checkpoint."""
    path = CHECKPOINTS / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def rewrite(path, change):
    """Puts what `change` makes of its tensors into a file of weights."""
    tensors = change(load_file(path))
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, {"format": "pt"})


def positions(count):
    """The buffer of position ids that older files hold."""
    return torch.arange(count)[None]


def pixels(seed, **shapes):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def doubled(inputs):
    return {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}


def gap_between(low, high):
    """The largest difference between results in 32 and in 64 bits."""
    return max((low[key].double() - high[key].double()).abs().max().item() for key in high)


def both(model, inputs, run):
    """What `run` makes of the inputs in 32 bits and in 64."""
    with torch.no_grad():
        low = run(model.float(), inputs)
        high = run(model.double(), doubled(inputs))
    model.float()
    return low, high


def write_reference(path, inputs, outputs, gap, prefix="out."):
    """Inputs, expected outputs and the gap, in a file of their own; or the gaps of their parts, which
    the outputs' names begin with."""

    def stored(value):
        return (value.float() if value.is_floating_point() else value.long()).contiguous().clone()

    tensors = {"in." + key: stored(value) for key, value in inputs.items()}
    tensors |= {prefix + key: stored(value) for key, value in outputs.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    gaps = gap if isinstance(gap, dict) else {"": gap}
    shown = {part: f"{gap:.3e}" if gap else "0" for part, gap in sorted(gaps.items())}
    save_file(tensors, path, {f"gap.{part}".rstrip("."): gap for part, gap in shown.items()})


def write_outputs(path, model, inputs, run, extra=None):
    """`reference.safetensors` of a folder whose weights are written, and that they are found there.

    `extra` are expected integers.
    """
    low, high = both(model, inputs, run)
    gap = gap_between(low, high)
    flat = [key for key, value in high.items() if value.numel() > 1 and value.std() < 0.05]
    assert not flat, f"{path.name}: degenerate outputs {flat}"
    write_reference(path / "reference.safetensors", inputs, high | (extra or {}), gap)
    loaded = type(model).from_pretrained(path, dtype=torch.float32).eval()
    same_weights(loaded, model)
    with torch.no_grad():
        again = run(loaded, inputs)
    assert gap_between(again, high) <= 10 * gap, path.name
    report(path, gap)


def same_weights(loaded, model):
    """The library's own import of a folder gives the weights that went into it."""
    expected = model.state_dict()
    found = loaded.state_dict()
    assert found.keys() == expected.keys()
    wrong = [key for key in expected if not torch.equal(found[key], expected[key])]
    assert not wrong, wrong


def report(path, gap):
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path.relative_to(FIXTURES)}: {size} bytes, gap {gap:.1e}", flush=True)


def hidden_states(output, prefix=""):
    return {f"{prefix}hidden.{i}": state for i, state in enumerate(output.hidden_states)}
