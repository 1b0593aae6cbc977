"""What transformers makes of the folders in models/tests/fixtures/checkpoints, for the commands `embed`,
`caption` and `predict`: tests/fixtures/commands.json.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 pillow==13.0.0 numpy==2.4.6
    python tests/reference/commands.py
"""

import json
import pathlib

import torch
from PIL import Image
from transformers import (
    BlipForConditionalGeneration,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPModel,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "models/tests/fixtures/checkpoints"
PICTURES = {
    name: Image.open(CHECKPOINTS / "preprocess" / f"{name}.png").convert("RGB")
    for name in ["landscape", "portrait"]
}


def pixels(processor, name, picture):
    return processor.from_pretrained(CHECKPOINTS / name)(picture, return_tensors="pt").pixel_values


def embeddings():
    clip = CLIPModel.from_pretrained(CHECKPOINTS / "clip").eval()
    vit = ViTModel.from_pretrained(CHECKPOINTS / "vit-bare", dtype=torch.float32).eval()
    found = {"clip": {}, "vit-bare": {}}
    for shown, picture in PICTURES.items():
        features = clip.get_image_features(pixels(CLIPImageProcessor, "clip", picture))
        features = getattr(features, "pooler_output", features)
        found["clip"][shown] = (features / features.norm(dim=-1, keepdim=True))[0].tolist()
        states = vit(pixels(ViTImageProcessor, "vit-bare", picture))
        found["vit-bare"][shown] = states.pooler_output[0].tolist()
    return found


def captions():
    folder = CHECKPOINTS / "blip"
    processor = BlipProcessor.from_pretrained(folder)
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    found = {}
    for beams in [1, 3]:
        for shown, picture in PICTURES.items():
            inputs = processor(picture, return_tensors="pt")
            ids = model.generate(**inputs, num_beams=beams, do_sample=False, max_length=10)
            # Without the token that every caption begins with, which this small tokenizer writes out.
            found[f"{shown}, {beams} beams"] = processor.decode(ids[0][1:], skip_special_tokens=True)
    return found


def classes():
    model = ViTForImageClassification.from_pretrained(CHECKPOINTS / "vit-classifier").eval()
    names = [model.config.id2label[label] for label in range(model.config.num_labels)]
    found = {}
    for shown, picture in PICTURES.items():
        logits = model(pixels(ViTImageProcessor, "vit-classifier", picture)).logits[0]
        found[shown] = dict(zip(names, logits.softmax(-1).tolist()))
    return found


if __name__ == "__main__":
    with torch.no_grad():
        made = {"embed": embeddings(), "caption": captions(), "predict": classes()}
    (ROOT / "tests/fixtures/commands.json").write_text(json.dumps(made, indent=1) + "\n")
