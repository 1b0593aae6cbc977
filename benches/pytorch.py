"""The rows of `benches/rows` in PyTorch: transformers and diffusers, eager unless it is to compile.

    python benches/pytorch.py --threads N --list
    python benches/pytorch.py --threads N ROW --work DIR [--device cuda] [--precision bf16] [--compile]

compare.py runs it and has the versions in its header. It answers lines as `benches/rows` does, and
beside the peak it prints the memory that was resident once the libraries were imported and, unless
compiled, the operations of one more run (two a multiply-add of matrix products and convolutions). In half
precision what does not learn is converted, what learns computes under autocast with its weights in 32
bits. Without diffusers the rows of diffusion models are left out.
"""

import argparse
import json
import pathlib
import sys
import time

import torch
import transformers
from safetensors import safe_open
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
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

try:
    import diffusers
    from diffusers import (
        AutoencoderKL,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        UNet2DConditionModel,
    )
except ImportError:
    diffusers = None

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "reference"))
from captioner import Head  # noqa: E402

BATCH = 32
ADAMW = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05)
PRECISIONS = dict(f32=torch.float32, f16=torch.float16, bf16=torch.bfloat16)
WITHOUT_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


# What the command line says.
DEVICE, DTYPE, COMPILE = torch.device("cpu"), torch.float32, False


def random(*shape, vocabulary=None):
    """Normal numbers, or ids of a vocabulary."""
    if vocabulary:
        return torch.randint(vocabulary, shape, device=DEVICE)
    return torch.randn(shape, device=DEVICE)


def compiled(module):
    return torch.compile(module) if COMPILE else module


def using(model):
    """A model that does not learn."""
    return model.eval().to(DEVICE, DTYPE)


def forward(model, *inputs):
    model = compiled(using(model))
    inputs = [x.to(DTYPE) if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs]
    return torch.inference_mode()(lambda: model(*inputs)[0].cpu())


def autocast():
    return torch.autocast(DEVICE.type, DTYPE, enabled=DTYPE != torch.float32)


def gradients(model, inputs, *shape, update=False):
    """Of all parameters; the loss is the output along one random direction."""
    model = model.train().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW | {"lr": 1e-5}) if update else None
    run = compiled(model)
    direction = random(*shape)

    def work():
        model.zero_grad()
        with autocast():
            loss = (run(inputs)[0].float() * direction).sum()
        loss.backward()
        if update:
            optimizer.step()

    return work


def bert(_):
    model = BertModel(BertConfig(), add_pooling_layer=False)
    return forward(model, random(8, 128, vocabulary=30522))


def bert_gradients(rows, **options):
    model = BertModel(BertConfig(**WITHOUT_DROPOUT), add_pooling_layer=False)
    return gradients(model, random(rows, 128, vocabulary=30522), rows, 128, 768, **options)


def bert_load(folder):
    """From the folder that `benches/rows` has written."""
    ids = random(1, 16, vocabulary=30522)

    @torch.inference_mode()
    def work():
        model = BertModel.from_pretrained(folder / "bert-base", add_pooling_layer=False)
        return using(model)(ids).last_hidden_state.cpu()

    return work


def vit(_):
    model = ViTForImageClassification(ViTConfig(num_labels=1000))
    return forward(model, random(8, 3, 224, 224))


def vit_gradients(rows, **options):
    model = ViTForImageClassification(ViTConfig(num_labels=1000, **WITHOUT_DROPOUT))
    return gradients(model, random(rows, 3, 224, 224), rows, 1000, **options)


def clip_l14():
    # https://huggingface.co/openai/clip-vit-large-patch14/blob/main/config.json
    sizes = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
    return CLIPTextModel(CLIPTextConfig(**sizes, projection_dim=768))


def clip_text(_):
    return forward(clip_l14(), random(2, 77, vocabulary=49408))


def caption(_):
    # https://huggingface.co/Salesforce/blip-image-captioning-base/blob/main/config.json
    model = BlipForConditionalGeneration(BlipConfig(text_config=dict(num_attention_heads=12)))
    model = using(model)
    pixels = random(1, 3, 384, 384).to(DTYPE)
    length = dict(min_new_tokens=20, max_new_tokens=20)

    @torch.inference_mode()
    def work():
        found = model.generate(pixels, num_beams=1, do_sample=False, **length)
        assert found.shape == (1, 1 + 20), found.shape

    return work


def sd_unet():
    # Stable Diffusion 1.5 but for its width of the condition is diffusers' default.
    return UNet2DConditionModel(cross_attention_dim=768)


def sd_autoencoder():
    # https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5/blob/main/vae/config.json
    blocks = dict(
        block_out_channels=[128, 256, 512, 512],
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
    )
    return AutoencoderKL(layers_per_block=2, **blocks)


def unet(rows):
    return forward(sd_unet(), random(rows, 4, 64, 64), 500, random(rows, 77, 768))


def vae_decode(_):
    model = using(sd_autoencoder())
    decode = compiled(model.decode)
    latents = random(1, 4, 64, 64).to(DTYPE)
    return torch.inference_mode()(lambda: decode(latents).sample.cpu())


def sampled(unet, scheduler, context, latents, steps, guidance):
    """`context` is that of the negative prompts, then that of the prompts."""
    scheduler.set_timesteps(steps, device=DEVICE)
    for time_step in scheduler.timesteps:
        both = unet(torch.cat([latents, latents]), time_step, context).sample
        without, along = both.chunk(2)
        guided = without + guidance * (along - without)
        latents = scheduler.step(guided, time_step, latents).prev_sample
    return latents


def pictures(rows):
    """From the prompts' tokens to the pixels."""
    text, vae = using(clip_l14()), using(sd_autoencoder())
    unet, decode = compiled(using(sd_unet())), compiled(vae.decode)
    schedule = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler = DPMSolverMultistepScheduler(**schedule, timestep_spacing="leading", steps_offset=1)
    positive, negative = (random(count, 77, vocabulary=49408) for count in (rows, 1))

    @torch.inference_mode()
    def work():
        without = text(negative).last_hidden_state.expand(rows, -1, -1)
        context = torch.cat([without, text(positive).last_hidden_state])
        latents = random(rows, 4, 64, 64).to(DTYPE)
        latents = sampled(unet, scheduler, context, latents, steps=20, guidance=7.5)
        return decode(latents / 0.18215).sample.cpu()

    return work


def product(_):
    left, right = (torch.randn(4096, 4096, device=DEVICE) for _ in range(2))
    left, right = left.to(DTYPE), (right / 64).to(DTYPE)

    def work():
        found = left
        for _ in range(20):
            found = found @ right
        return found[:1, :1].cpu()

    return work


def bundled(name):
    """The configuration of a bundled model."""
    with safe_open(ROOT / "models" / "assets" / f"{name}.safetensors", "pt") as file:
        return json.loads(file.metadata()["config"])


def world_diffusion():
    config = bundled("diffusion")
    text = CLIPTextModel(CLIPTextConfig(**config["text"], bos_token_id=2, pad_token_id=0))
    unet = UNet2DConditionModel(**config["unet"])
    return text.eval().to(DEVICE), unet.to(DEVICE), config["schedule"]


def world_unet_step(_):
    text, unet, schedule = world_diffusion()
    scheduler = DDPMScheduler(**schedule)
    unet.train()
    optimizer = torch.optim.AdamW(unet.parameters(), **ADAMW)
    latents, noise = random(BATCH, 4, 8, 8), random(BATCH, 4, 8, 8)
    times = random(BATCH, vocabulary=1000)
    ids = torch.full((BATCH, 20), 20, device=DEVICE)

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
    config = bundled("autoencoder")
    text, unet, vae = using(text), using(unet), using(AutoencoderKL(**config))
    scheduler = DPMSolverMultistepScheduler(**schedule, timestep_spacing="trailing")
    ids, empty = random(BATCH, 20, vocabulary=1200), random(1, 20, vocabulary=1200)

    @torch.inference_mode()
    def work():
        negative = text(empty).last_hidden_state.expand(BATCH, -1, -1)
        context = torch.cat([negative, text(ids).last_hidden_state])
        latents = random(BATCH, 4, 8, 8).to(DTYPE)
        latents = sampled(unet, scheduler, context, latents, steps=8, guidance=3.0)
        pixels = vae.decode(latents / config["scaling_factor"]).sample
        pixels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).contiguous().cpu()

    return work


def world_student_step(_, frozen=False):
    text, vision = BertConfig(**bundled("text-encoder")), ViTConfig(**bundled("vision-encoder"))
    bert = BertModel(text, add_pooling_layer=False)
    vit = ViTModel(vision, add_pooling_layer=False)
    width, labels = text.hidden_size, 23
    head = Head(width, vision.hidden_size, width, 4, labels)
    bert.requires_grad_(not frozen)
    vit.requires_grad_(not frozen)
    parts = torch.nn.ModuleList([bert, vit, head]).train().to(DEVICE)
    learnt = [parameter for parameter in parts.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, **ADAMW)

    rows = torch.arange(BATCH, device=DEVICE)
    mask = (torch.arange(24, device=DEVICE)[None] < (17 + rows % 8)[:, None]).long()
    ids = 20 * mask
    heads, tails = torch.full_like(rows, 1), torch.full_like(rows, 9)
    size = vision.image_size
    pictures = torch.randint(256, (BATCH, 3, size, size), dtype=torch.uint8, device=DEVICE)
    present = torch.ones_like(rows, dtype=torch.bool)

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
    "bert-gradients": lambda _: bert_gradients(8),
    "bert-training": lambda _: bert_gradients(32, update=True),
    "bert-load": bert_load,
    "vit": vit,
    "vit-gradients": lambda _: vit_gradients(8),
    "vit-training": lambda _: vit_gradients(32, update=True),
    "clip-text": clip_text,
    "caption": caption,
    "product": product,
    "world-student-step": world_student_step,
    "world-student-frozen-step": lambda folder: world_student_step(folder, frozen=True),
}
OF_DIFFUSERS = {
    "unet-1": lambda _: unet(1),
    "unet-2": lambda _: unet(2),
    "unet-16": lambda _: unet(16),
    "vae-decode": vae_decode,
    "pictures-1": lambda _: pictures(1),
    "pictures-8": lambda _: pictures(8),
    "pictures-16": lambda _: pictures(16),
    "world-unet-step": world_unet_step,
    "world-pictures": world_pictures,
}
if diffusers:
    ROWS |= OF_DIFFUSERS


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
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        print(json.dumps({"seconds": time.perf_counter() - begin}), flush=True)
    found = {"peak_kib": memory("VmHWM"), "imported_kib": imported}
    if not COMPILE:
        with FlopCounterMode(display=False) as counter:
            work()
        found["flop"] = counter.get_total_flops()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serves a row in PyTorch.")
    parser.add_argument("row", nargs="?", choices=ROWS)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--device", type=torch.device, default=DEVICE)
    parser.add_argument("--precision", choices=PRECISIONS, default="f32")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    DEVICE, DTYPE, COMPILE = options.device, PRECISIONS[options.precision], options.compile
    if options.list:
        print(*ROWS, sep="\n")
        sys.exit()
    torch.set_num_threads(options.threads)
    for library in filter(None, (transformers, diffusers)):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    serve(options.row, options.work)
