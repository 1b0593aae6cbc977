"""The rows of `benches/rows` in PyTorch: transformers and diffusers, eager, in 32 bits.

    python benches/pytorch.py --threads N --list
    python benches/pytorch.py --threads N ROW --work DIR

compare.py runs it and has the versions in its header. It answers lines as `benches/rows` does, and
beside the peak it prints the memory that was resident once the libraries were imported.
"""

import argparse
import json
import pathlib
import sys
import time

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
)
from safetensors import safe_open
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertModel,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPTextConfig,
    CLIPTextModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "reference"))
from captioner import Head  # noqa: E402

BATCH = 32
ADAMW = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05)
WITHOUT_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def forward(model, *inputs):
    model.eval()
    return torch.inference_mode()(lambda: model(*inputs)[0])


def gradients(model, inputs, shape):
    """Of all parameters; the loss is the output along one random direction."""
    model.train()
    direction = torch.randn(shape)

    def work():
        model.zero_grad()
        (model(inputs)[0] * direction).sum().backward()

    return work


def bert(_):
    model = BertModel(BertConfig(), add_pooling_layer=False)
    return forward(model, torch.randint(30522, (8, 128)))


def bert_gradients(_):
    model = BertModel(BertConfig(**WITHOUT_DROPOUT), add_pooling_layer=False)
    return gradients(model, torch.randint(30522, (8, 128)), (8, 128, 768))


def bert_load(folder):
    """From the folder that `benches/rows` has written."""
    ids = torch.randint(30522, (1, 16))

    @torch.inference_mode()
    def work():
        model = BertModel.from_pretrained(folder / "bert-base", add_pooling_layer=False)
        return model(ids).last_hidden_state

    return work


def vit(_):
    model = ViTForImageClassification(ViTConfig(num_labels=1000))
    return forward(model, torch.randn(8, 3, 224, 224))


def vit_gradients(_):
    model = ViTForImageClassification(ViTConfig(num_labels=1000, **WITHOUT_DROPOUT))
    return gradients(model, torch.randn(8, 3, 224, 224), (8, 1000))


def clip_text(_):
    # https://huggingface.co/openai/clip-vit-large-patch14/blob/main/config.json
    sizes = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
    model = CLIPTextModel(CLIPTextConfig(**sizes, projection_dim=768))
    return forward(model, torch.randint(49408, (2, 77)))


def caption(_):
    # https://huggingface.co/Salesforce/blip-image-captioning-base/blob/main/config.json
    model = BlipForConditionalGeneration(BlipConfig(text_config=dict(num_attention_heads=12)))
    model.eval()
    pixels = torch.randn(1, 3, 384, 384)
    length = dict(min_new_tokens=20, max_new_tokens=20)

    @torch.inference_mode()
    def work():
        found = model.generate(pixels, num_beams=1, do_sample=False, **length)
        assert found.shape == (1, 1 + 20), found.shape

    return work


def unet(rows):
    # Stable Diffusion 1.5 but for its width of the condition is diffusers' default.
    model = UNet2DConditionModel(cross_attention_dim=768)
    return forward(model, torch.randn(rows, 4, 64, 64), 500, torch.randn(rows, 77, 768))


def vae_decode(_):
    # https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5/blob/main/vae/config.json
    blocks = dict(
        block_out_channels=[128, 256, 512, 512],
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
    )
    model = AutoencoderKL(layers_per_block=2, **blocks).eval()
    latents = torch.randn(1, 4, 64, 64)
    return torch.inference_mode()(lambda: model.decode(latents).sample)


def bundled(name):
    """The configuration of a bundled model."""
    with safe_open(ROOT / "models" / "assets" / f"{name}.safetensors", "pt") as file:
        return json.loads(file.metadata()["config"])


def world_diffusion():
    config = bundled("diffusion")
    text = CLIPTextModel(CLIPTextConfig(**config["text"], bos_token_id=2, pad_token_id=0))
    return text.eval(), UNet2DConditionModel(**config["unet"]), config["schedule"]


def world_unet_step(_):
    text, unet, schedule = world_diffusion()
    scheduler = DDPMScheduler(**schedule)
    unet.train()
    optimizer = torch.optim.AdamW(unet.parameters(), **ADAMW)
    latents, noise = torch.randn(BATCH, 4, 8, 8), torch.randn(BATCH, 4, 8, 8)
    times = torch.randint(1000, (BATCH,))
    ids = torch.full((BATCH, 20), 20)

    def work():
        noisy = scheduler.add_noise(latents, noise, times)
        target = scheduler.get_velocity(latents, noise, times)
        with torch.no_grad():
            context = text(ids).last_hidden_state
        loss = F.mse_loss(unet(noisy, times, context).sample, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return work


def world_pictures(_):
    text, unet, schedule = world_diffusion()
    unet.eval()
    config = bundled("autoencoder")
    vae = AutoencoderKL(**config).eval()
    scheduler = DPMSolverMultistepScheduler(**schedule, timestep_spacing="trailing")
    ids, empty = torch.randint(1200, (BATCH, 20)), torch.randint(1200, (1, 20))

    @torch.inference_mode()
    def work():
        negative = text(empty).last_hidden_state.expand(BATCH, -1, -1)
        context = torch.cat([negative, text(ids).last_hidden_state])
        latents = torch.randn(BATCH, 4, 8, 8)
        scheduler.set_timesteps(8)
        for time_step in scheduler.timesteps:
            both = unet(torch.cat([latents, latents]), time_step, context).sample
            without, along = both.chunk(2)
            guided = without + 3.0 * (along - without)
            latents = scheduler.step(guided, time_step, latents).prev_sample
        pixels = vae.decode(latents / config["scaling_factor"]).sample
        pixels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).contiguous()

    return work


def world_student_step(_, frozen=False):
    text, vision = BertConfig(**bundled("text-encoder")), ViTConfig(**bundled("vision-encoder"))
    bert = BertModel(text, add_pooling_layer=False)
    vit = ViTModel(vision, add_pooling_layer=False)
    width, labels = text.hidden_size, 23
    head = Head(width, vision.hidden_size, width, 4, labels)
    bert.requires_grad_(not frozen)
    vit.requires_grad_(not frozen)
    parts = torch.nn.ModuleList([bert, vit, head]).train()
    learnt = [parameter for parameter in parts.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, **ADAMW)

    rows = torch.arange(BATCH)
    mask = (torch.arange(24)[None] < (17 + rows % 8)[:, None]).long()
    ids = 20 * mask
    heads, tails = torch.full((BATCH,), 1), torch.full((BATCH,), 9)
    size = vision.image_size
    pictures = torch.randint(256, (BATCH, 3, size, size), dtype=torch.uint8)
    present = torch.ones(BATCH, dtype=torch.bool)

    def work():
        states = bert(ids, attention_mask=mask).last_hidden_state
        markers = torch.stack([states[rows, heads], states[rows, tails]], 1)
        patches = vit(pictures / 127.5 - 1).last_hidden_state
        loss = F.cross_entropy(head(markers, patches, present, present), rows % labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return work


ROWS = {
    "bert": bert,
    "bert-gradients": bert_gradients,
    "bert-load": bert_load,
    "vit": vit,
    "vit-gradients": vit_gradients,
    "clip-text": clip_text,
    "caption": caption,
    "unet-1": lambda _: unet(1),
    "unet-2": lambda _: unet(2),
    "vae-decode": vae_decode,
    "world-unet-step": world_unet_step,
    "world-pictures": world_pictures,
    "world-student-step": world_student_step,
    "world-student-frozen-step": lambda folder: world_student_step(folder, frozen=True),
}


def memory(key):
    """KiB of the process, by the key in its status."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def serve(row, folder):
    imported = memory("VmRSS")
    torch.manual_seed(1)
    work = ROWS[row](folder)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
    for line in sys.stdin:
        if line.strip() != "go":
            break
        begin = time.perf_counter()
        work()
        print(json.dumps({"seconds": time.perf_counter() - begin}), flush=True)
    print(json.dumps({"peak_kib": memory("VmHWM"), "imported_kib": imported}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serves a row in PyTorch.")
    parser.add_argument("row", nargs="?", choices=ROWS)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--work", type=pathlib.Path)
    options = parser.parse_args()
    if options.list:
        print(*ROWS, sep="\n")
        sys.exit()
    torch.set_num_threads(options.threads)
    for library in (transformers.utils.logging, diffusers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    serve(options.row, options.work)
