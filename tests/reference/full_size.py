"""Models of full size with random weights, and what the Python libraries make of them in what time.

    pip install torch==2.15.0 transformers==5.23.0 diffusers==0.42.1 accelerate==1.15.0 \\
        tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6 pillow==13.0.0
    python tests/reference/full_size.py build FOLDER [NAME ...]
    python tests/reference/full_size.py run FOLDER NAME

By hand, not of the tests. NAME is sd15 (2.1 GB), sd21 (2.6 GB), bert-base, vit-base, blip-base (0.5 GB)
or blip-large (0.9 GB); build makes all of them unless some are named. Stable Diffusion and BLIP lie in 16
bits and are read into 32.

build writes FOLDER/NAME as published, and beside the weights what goes in: `inputs.safetensors`
(pixels, latents), `sentences.json`, `prompts.json`. run writes `reference.safetensors` there, with `in.`
and `out.`, and prints the seconds of reading and of computing and the peak of resident memory.
"""

import json
import os
import pathlib
import resource
import shutil
import sys
import time

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPTextConfig,
    CLIPTextModel,
    ViTConfig,
    ViTModel,
)
from transformers.utils import logging

import pipelines
import vocabularies
from published import CLIP_MEAN, CLIP_STD, positions, rewrite, spread, write_json

LEVELS = 4
PROMPTS = dict(
    prompt="a photo of an astronaut riding a horse on the moon",
    negative="blurry, bad quality",
    steps=10,
    guidance=7.5,
)


def drawn(path, seed, **shapes):
    generator = torch.Generator().manual_seed(seed)
    inputs = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(inputs, path / "inputs.safetensors")


def write_word_pieces(path, count, last=()):
    """The tiny vocabulary, with pieces that no text has up to `count`."""
    pieces = vocabularies.lower_case_pieces(vocabularies.WORDS)
    fill = [f"[unused{i}]" for i in range(count - len(pieces) - len(last))]
    vocabularies.write_vocabulary(path, pieces + fill + list(last))
    settings = vocabularies.bert_tokenizer_settings(model_max_length=512)
    write_json(path / "tokenizer_config.json", settings)


def build_bert(path):
    spread(BertModel(BertConfig()), 1).save_pretrained(path)
    write_word_pieces(path, 30522)
    write_json(path / "sentences.json", ["The two dogs sat on the very big mat, playing."])


def build_vit(path):
    spread(ViTModel(ViTConfig()), 2).save_pretrained(path)
    drawn(path, 3, pixels=(1, 3, 224, 224))


def build_blip(path, **vision):
    text = dict(bos_token_id=30522, sep_token_id=3, pad_token_id=0, num_attention_heads=12)
    width = BlipConfig(vision_config=vision).vision_config.hidden_size
    config = BlipConfig(text_config=text | {"encoder_hidden_size": width}, vision_config=vision)
    model = spread(BlipForConditionalGeneration(config), 4)
    with torch.no_grad():
        # Or else twelve random layers say the same of every word, and captions are one word again and
        # again: words and their places must outweigh what attention adds to them.
        bert = model.text_decoder.bert
        model.text_decoder.cls.predictions.bias.zero_()
        bert.embeddings.position_embeddings.weight.mul_(4)
        for layer in bert.encoder.layer:
            for part in [layer.attention.output, layer.crossattention.output, layer.output]:
                part.dense.weight.mul_(0.25)
                part.dense.bias.mul_(0.25)
    model.half().save_pretrained(path)
    write_word_pieces(path, 30524, ["[DEC]", "[ENC]"])
    processor = dict(
        do_normalize=True,
        do_rescale=True,
        do_resize=True,
        image_mean=CLIP_MEAN,
        image_processor_type="BlipImageProcessor",
        image_std=CLIP_STD,
        resample=3,
        rescale_factor=0.00392156862745098,
        size={"height": 384, "width": 384},
    )
    write_json(path / "preprocessor_config.json", processor)
    drawn(path, 5, pixels=(1, 3, 384, 384))


def build_blip_large(path):
    build_blip(path, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)


def build_sd(path, text, unet):
    """Stable Diffusion with what its versions differ in: the text encoder's sizes, the U-Net's attention."""
    size = vocabularies.write_byte_pairs(path / "tokenizer", 77, fill=49408)
    assert size == 49408
    config = CLIPTextConfig(bos_token_id=0, eos_token_id=2, **text)
    spread(CLIPTextModel(config), 6).half().save_pretrained(path / "text_encoder")
    older = {"text_model.embeddings.position_ids": positions(77)}
    prefixed = lambda tensors: {f"text_model.{key}": value for key, value in tensors.items()}
    weights = path / "text_encoder" / "model.safetensors"
    rewrite(weights, lambda tensors: prefixed(tensors) | older)

    sizes = dict(
        block_out_channels=[320, 640, 1280, 1280],
        cross_attention_dim=text["hidden_size"],
        down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        layers_per_block=2,
        norm_num_groups=32,
        sample_size=64,
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    )
    unet = pipelines.UNET | sizes | unet
    spread(UNet2DConditionModel(**unet), 7).half().save_pretrained(path / "unet")
    written = dict(_class_name="UNet2DConditionModel", _diffusers_version="0.6.0")
    write_json(path / "unet" / "config.json", written | unet)

    vae = dict(
        block_out_channels=[128, 256, 512, 512],
        down_block_types=["DownEncoderBlock2D"] * LEVELS,
        layers_per_block=2,
        norm_num_groups=32,
        sample_size=512,
        up_block_types=["UpDecoderBlock2D"] * LEVELS,
    )
    vae = pipelines.VAE | vae
    spread(AutoencoderKL(**vae), 8).half().save_pretrained(path / "vae")
    rewrite(path / "vae" / "diffusion_pytorch_model.safetensors", pipelines.older_names)
    written = dict(_class_name="AutoencoderKL", _diffusers_version="0.6.0")
    write_json(path / "vae" / "config.json", written | vae)

    written = dict(_class_name="PNDMScheduler", _diffusers_version="0.6.0")
    write_json(path / "scheduler" / "scheduler_config.json", written | pipelines.SCHEDULE)
    pipelines.write_index(path, "PNDMScheduler")
    write_json(path / "prompts.json", PROMPTS)
    drawn(path, 9, latents=(1, 4, 64, 64))


def build_sd15(path):
    text = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768)
    build_sd(path, text, dict(attention_head_dim=8))


def build_sd21(path):
    """2.1-base: 23 layers of a larger text encoder, heads of 64 channels, linear projections."""
    text = dict(
        hidden_act="gelu",
        hidden_size=1024,
        intermediate_size=4096,
        num_attention_heads=16,
        num_hidden_layers=23,
        projection_dim=512,
    )
    build_sd(path, text, dict(attention_head_dim=[5, 10, 20, 20], use_linear_projection=True))


def run_bert(path):
    model = BertModel.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = BertTokenizer.from_pretrained(path)
    sentences = json.loads((path / "sentences.json").read_text())
    encoded = tokenizer(sentences, padding=True, return_tensors="pt")
    inputs = dict(input_ids=encoded.input_ids, attention_mask=encoded.attention_mask)
    return inputs, lambda: {"last": model(**inputs).last_hidden_state}


def run_vit(path):
    model = ViTModel.from_pretrained(path, dtype=torch.float32).eval()
    inputs = load_file(path / "inputs.safetensors")
    return inputs, lambda: {"last": model(inputs["pixels"]).last_hidden_state}


def run_blip(path):
    model = BlipForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
    inputs = load_file(path / "inputs.safetensors")

    def captions(beams):
        settings = dict(num_beams=beams, max_length=20, length_penalty=1.0, do_sample=False)
        return model.generate(inputs["pixels"], **settings)

    return inputs, lambda: {"greedy": captions(1), "beams": captions(3)}


def run_sd(path):
    pipeline = StableDiffusionPipeline.from_pretrained(
        path, dtype=torch.float32, safety_checker=None
    )
    inputs = load_file(path / "inputs.safetensors")
    prompts = json.loads((path / "prompts.json").read_text())

    def compute():
        latents = pipeline(
            prompts["prompt"],
            negative_prompt=prompts["negative"],
            num_inference_steps=prompts["steps"],
            guidance_scale=prompts["guidance"],
            latents=inputs["latents"].clone(),
            output_type="latent",
        ).images
        scale = pipeline.vae.config.scaling_factor
        return {"latents": latents, "picture": pipeline.vae.decode(latents / scale).sample}

    return inputs, compute


MODELS = {
    "sd15": (build_sd15, run_sd),
    "sd21": (build_sd21, run_sd),
    "bert-base": (build_bert, run_bert),
    "vit-base": (build_vit, run_vit),
    "blip-base": (build_blip, run_blip),
    "blip-large": (build_blip_large, run_blip),
}


def build(folder, *names):
    for name in names or MODELS:
        path = pathlib.Path(folder) / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        MODELS[name][0](path)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        print(f"{path}: {size / 1e6:.1f} MB", flush=True)


def run(folder, name):
    path = pathlib.Path(folder) / name
    begin = time.perf_counter()
    inputs, compute = MODELS[name][1](path)
    read = time.perf_counter()
    with torch.no_grad():
        outputs = compute()
    end = time.perf_counter()
    tensors = {"in." + key: value for key, value in inputs.items()}
    tensors |= {"out." + key: value.contiguous() for key, value in outputs.items()}
    save_file(tensors, path / "reference.safetensors")
    for key, value in outputs.items():
        about = value.tolist() if value.dtype == torch.int64 else f"deviation {value.std():.3g}"
        print(f"{key}: {list(value.shape)}, {about}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = f"read in {read - begin:.2f} s, computed in {end - read:.2f} s"
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    print(f"{name}: {seconds} with {threads}, peak {peak:.2f} GiB")


if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    {"build": build, "run": run}[sys.argv[1]](*sys.argv[2:])
