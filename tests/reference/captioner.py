"""Fixtures of models/tests/captioner.rs and models/tests/fusion.rs.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    OMP_NUM_THREADS=1 python tests/reference/captioner.py

Writes models/tests/fixtures/{captioner,fusion,fusion_gradients}.safetensors. The weights have the
names of published checkpoints (`save_pretrained` gives them) below those of the parts; inputs and
expected outputs lie beside them under `in.` and `out.`; gradients have the names of their weights,
in a file of their own. The metadata hold the configuration and `gap`, the largest difference between
the outputs in 32 and in 64 bits (the expected ones are those in 64, stored in 32).

The captioner is transformers' VisionEncoderDecoderModel of a ViT and a BertLMHeadModel; the fusion
classifier is transformers' ViT and BERT below a head in plain torch.
"""

import json
import pathlib
import tempfile

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BertModel,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTModel,
)

FIXTURES = pathlib.Path(__file__).parents[2] / "models" / "tests" / "fixtures"


def spread(model, generator):
    """Random weights of a size at which every part of the model shows in the output."""
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            norm = parameter.dim() == 1 and bool((parameter == 1).all())
            parameter.copy_(1 + 0.2 * noise if norm else 0.25 * noise)
    return model.eval()


def published(model, prefix):
    """The parameters under the names of published checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = load_file(pathlib.Path(folder) / "model.safetensors")
    return {prefix + key: value for key, value in tensors.items()}


def gap(low, high):
    """The largest difference between results in 32 and in 64 bits."""
    return max((low[key].double() - high[key]).abs().max().item() for key in low)


def write(name, tensors, config, gap):
    def stored(value):
        return (value.float() if value.is_floating_point() else value).contiguous()

    path = FIXTURES / f"{name}.safetensors"
    metadata = {"config": json.dumps(config), "gap": f"{gap:.3e}"}
    save_file({key: stored(value) for key, value in tensors.items()}, path, metadata)
    print(f"{path.name}: {path.stat().st_size} bytes, gap {gap:.1e}")


def captioner():
    pad, start, end = 0, 1, 2
    vision = dict(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        image_size=12,
        patch_size=4,
    )
    text = dict(
        vocab_size=29,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=32,
        max_position_embeddings=16,
        type_vocab_size=1,
    )
    generator = torch.Generator().manual_seed(58)
    model = VisionEncoderDecoderModel(
        encoder=ViTModel(ViTConfig(**vision), add_pooling_layer=False),
        decoder=BertLMHeadModel(BertConfig(**text, is_decoder=True, add_cross_attention=True)),
    )
    model = spread(model, generator)
    with torch.no_grad():
        model.decoder.cls.predictions.bias[end] += 0.8  # or else few captions end
    tensors = published(model.encoder, "vision_model.")
    tensors |= published(model.decoder, "text_decoder.")

    batch = 6
    pixels = torch.randn(batch, 3, 12, 12, generator=generator)
    ids = torch.randint(3, 29, (batch, 9), generator=generator)
    mask = torch.arange(9)[None] < torch.tensor([9, 7, 9, 4, 8, 9])[:, None]
    ids = ids.masked_fill(~mask, pad)
    # The prompt is two tokens long; the targets are the ids one step ahead.
    counted = mask[:, 1:] & (torch.arange(1, 9)[None] >= 2)
    targets = ids[:, 1:].masked_fill(~counted, -100)

    def run(model):
        dtype = next(model.parameters()).dtype
        with torch.no_grad():
            output = model(
                pixel_values=pixels.to(dtype),
                decoder_input_ids=ids,
                decoder_attention_mask=mask.long(),
            )
        rows = output.logits[:, :-1].reshape(-1, 29)
        loss = F.cross_entropy(rows, targets.reshape(-1), label_smoothing=0.1)
        return {"out.logits": output.logits, "out.loss": loss.reshape(1)}

    low, high = run(model), run(model.double())
    tensors |= {
        "in.pixels": pixels,
        "in.ids": ids,
        "in.mask": mask.long(),
        "in.counted": counted.long(),
    } | high

    prompts = torch.tensor([[start]] * batch)
    longer = torch.tensor([[start, 7 + i, 5] for i in range(batch)])
    new = 10
    ended, found_texts = [], set()
    searches = {
        "greedy": (prompts, dict(num_beams=1)),
        "beam": (prompts, dict(num_beams=3, length_penalty=1.0)),
        "beam_long": (longer, dict(num_beams=3, length_penalty=2.0, min_new_tokens=4)),
        "beam_short": (longer, dict(num_beams=4, length_penalty=-0.5)),
    }
    for name, (prompt, options) in searches.items():
        if options["num_beams"] > 1:
            options = options | dict(early_stopping="never")
        with torch.no_grad():
            found = model.generate(
                pixel_values=pixels.double(),
                decoder_input_ids=prompt,
                max_new_tokens=new,
                do_sample=False,
                suppress_tokens=[pad, start],
                pad_token_id=pad,
                decoder_start_token_id=start,
                eos_token_id=end,
                return_dict_in_generate=True,
                output_scores=True,
                **options,
            )
        chosen = found.sequences[:, prompt.shape[1] :]
        # Beam search fills up with the end token where the padding token is 0.
        chosen = chosen.masked_fill((chosen == end).cumsum(1) - (chosen == end).long() > 0, pad)
        ended += (chosen == end).any(1).tolist()
        found_texts |= {(name, *row) for row in chosen.tolist()}
        tensors[f"in.{name}.prompt"] = prompt.clone()
        tensors[f"out.{name}"] = F.pad(chosen, (0, new - chosen.shape[1]), value=pad)
        if "sequences_scores" in found:
            tensors[f"out.{name}.scores"] = found.sequences_scores
    assert len(found_texts) >= 18, "choose weights with which captions differ"
    assert 4 <= sum(ended) <= len(ended) - 4, "choose weights with which some captions end"
    write("captioner", tensors, {"vision": vision, "text": text}, gap(low, high))


class Head(nn.Module):
    def __init__(self, text, vision, size, heads, labels):
        super().__init__()
        self.heads = heads
        self.absent_text = nn.Parameter(torch.zeros(2, text))
        self.absent_picture = nn.Parameter(torch.zeros(2, size))
        self.query = nn.Linear(text, size)
        self.key = nn.Linear(vision, size)
        self.value = nn.Linear(vision, size)
        self.output = nn.Linear(size, size)
        self.LayerNorm = nn.LayerNorm(size, eps=1e-12)
        self.dense = nn.Linear(2 * (text + size), size)
        self.classifier = nn.Linear(size, labels)

    def forward(self, markers, patches, text_present, picture_present):
        markers = torch.where(text_present[:, None, None], markers, self.absent_text)
        split = lambda x: x.unflatten(2, (self.heads, -1)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(
            split(self.query(markers)), split(self.key(patches)), split(self.value(patches))
        )
        attended = self.LayerNorm(self.output(attended.transpose(1, 2).flatten(2)))
        attended = torch.where(picture_present[:, None, None], attended, self.absent_picture)
        features = torch.cat([markers, attended], 2).flatten(1)
        return self.classifier(F.gelu(self.dense(features)))


def fusion():
    vision = dict(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=16,
        image_size=8,
        patch_size=4,
    )
    text = dict(
        vocab_size=23,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=10,
        type_vocab_size=1,
    )
    size, heads, labels = 20, 4, 5
    generator = torch.Generator().manual_seed(12)
    bert = spread(BertModel(BertConfig(**text), add_pooling_layer=False), generator)
    vit = spread(ViTModel(ViTConfig(**vision), add_pooling_layer=False), generator)
    head = spread(Head(16, 12, size, heads, labels), generator)

    def parameters():
        tensors = published(bert, "text.") | published(vit, "vision.")
        return tensors | {"head." + key: value for key, value in head.state_dict().items()}

    tensors = parameters()
    batch = 6
    lengths = torch.tensor([9, 6, 8, 9, 7, 9])
    # PyTorch gives the embedding of the padding token, 0, no gradient.
    ids = torch.randint(1, 23, (batch, 9), generator=generator)
    mask = torch.arange(9)[None] < lengths[:, None]
    first, second = torch.tensor([1, 4, 0, 8, 2, 3]), torch.tensor([5, 2, 7, 3, 6, 4])
    pixels = torch.randn(batch, 3, 8, 8, generator=generator)
    text_present = torch.tensor([1, 1, 1, 0, 0, 1]).bool()
    picture_present = torch.tensor([1, 1, 0, 1, 0, 1]).bool()
    targets = torch.tensor([0, 4, 2, 1, 3, 0])

    def run():
        states = bert(ids, attention_mask=mask.long()).last_hidden_state
        rows = torch.arange(batch)
        markers = torch.stack([states[rows, first], states[rows, second]], 1)
        patches = vit(pixels.to(states.dtype)).last_hidden_state
        logits = head(markers, patches, text_present, picture_present)
        return logits, F.cross_entropy(logits, targets)

    def outputs(logits, loss):
        return {"out.logits": logits.detach(), "out.loss": loss.detach().reshape(1)}

    low = outputs(*run())
    for part in (bert, vit, head):
        part.double()
    logits, loss = run()
    high = outputs(logits, loss)
    loss.backward()
    with torch.no_grad():
        for part in (bert, vit, head):
            for name, parameter in part.named_parameters():
                assert parameter.grad is not None, name
                parameter.copy_(parameter.grad)
    gradients = parameters()
    tensors |= {
        "in.ids": ids,
        "in.mask": mask.long(),
        "in.head": first,
        "in.tail": second,
        "in.pixels": pixels,
        "in.text_present": text_present.long(),
        "in.picture_present": picture_present.long(),
        "in.targets": targets,
    } | high
    config = dict(
        text=text,
        vision=vision,
        num_labels=labels,
        fusion_size=size,
        fusion_heads=heads,
        fusion_act="gelu",
    )
    write("fusion", tensors, config, gap(low, high))
    write("fusion_gradients", gradients, config, gap(low, high))


if __name__ == "__main__":
    torch.set_num_threads(1)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    captioner()
    fusion()
