"""Tiny folders of Stable Diffusion, for checkpoints.py.

sd1  as runwayml/stable-diffusion-v1-5: PNDM, older names in the VAE, position ids in the text encoder
sd2  as stabilityai/stable-diffusion-2-1: DDIM, v-prediction, linear projections, heads by level, the
     U-Net in 16 bits; the text encoder as save_pretrained writes it, without the prefix

The results in 32 bits are those of the pipeline as it is; those in 64 are of the same pipeline with
the schedule and the sinusoids of the timesteps in 64 bits too.
"""

import contextlib
import math

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    logging,
)
from diffusers.models import embeddings
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img
from transformers import CLIPTextConfig, CLIPTextModel

import vocabularies
from diffusion import recorded
from published import (
    doubled,
    folder,
    gap_between,
    hidden_states,
    positions,
    report,
    rewrite,
    rounded,
    same_weights,
    spread,
    write_json,
    write_reference,
)

PROMPTS = dict(
    prompt="A photo of an astronaut riding a horse on the moon",
    negative="blurry, bad quality",
    steps=5,
    guidance=7.5,
    strength=0.6,
)
BLOCKS = dict(
    block_out_channels=[8, 16],
    down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
)
# As of the published file of SD 1.5: what came later is not named.
UNET = dict(
    act_fn="silu",
    attention_head_dim=4,
    center_input_sample=False,
    cross_attention_dim=12,
    downsample_padding=1,
    flip_sin_to_cos=True,
    freq_shift=0,
    in_channels=4,
    layers_per_block=1,
    mid_block_scale_factor=1,
    norm_eps=1e-5,
    norm_num_groups=4,
    out_channels=4,
    sample_size=8,
)
VAE = dict(
    act_fn="silu",
    block_out_channels=[8, 8],
    down_block_types=["DownEncoderBlock2D"] * 2,
    in_channels=3,
    latent_channels=4,
    layers_per_block=1,
    norm_num_groups=4,
    out_channels=3,
    sample_size=16,
    up_block_types=["UpDecoderBlock2D"] * 2,
)
SCHEDULE = dict(
    beta_end=0.012,
    beta_schedule="scaled_linear",
    beta_start=0.00085,
    num_train_timesteps=1000,
    set_alpha_to_one=False,
    skip_prk_steps=True,
    steps_offset=1,
    trained_betas=None,
    clip_sample=False,
)


def exact_embedding(timesteps, size, flip_sin_to_cos, downscale_freq_shift, scale):
    """diffusers' sinusoids in 64 bits."""
    assert size % 2 == 0 and scale == 1
    half = size // 2
    exponents = torch.arange(half, dtype=torch.float64) / (half - downscale_freq_shift)
    angles = timesteps[:, None].double() * torch.exp(-math.log(10000) * exponents)
    parts = [torch.cos(angles), torch.sin(angles)]
    return torch.cat(parts if flip_sin_to_cos else parts[::-1], 1)


@contextlib.contextmanager
def exact_timesteps():
    """The sinusoids of the timesteps in 64 bits; diffusers has them in 32."""
    before = embeddings.get_timestep_embedding
    embeddings.get_timestep_embedding = exact_embedding
    try:
        yield
    finally:
        embeddings.get_timestep_embedding = before


def exact_alphas():
    """The products of SD's schedule in 64 bits."""
    roots = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    return torch.cumprod(1 - roots**2, 0)


def in_64_bits(pipeline):
    pipeline.to(torch.float64)
    scheduler = pipeline.scheduler
    exact = exact_alphas()
    assert (scheduler.alphas_cumprod.double() - exact).abs().max() < 1e-6
    scheduler.alphas_cumprod = exact
    scheduler.final_alpha_cumprod = exact[0]
    return pipeline


def write_text_encoder(path, size, seed, act):
    config = dict(
        attention_dropout=0.0,
        bos_token_id=0,
        eos_token_id=2,
        hidden_act=act,
        hidden_size=12,
        initializer_factor=1.0,
        initializer_range=0.02,
        intermediate_size=20,
        layer_norm_eps=1e-5,
        max_position_embeddings=12,
        num_attention_heads=3,
        num_hidden_layers=2,
        pad_token_id=1,
        projection_dim=12,
        vocab_size=size,
    )
    model = spread(CLIPTextModel(CLIPTextConfig(**config)), seed)
    model.save_pretrained(path / "text_encoder")
    older = dict(
        architectures=["CLIPTextModel"],
        dropout=0.0,
        model_type="clip_text_model",
        torch_dtype="float32",
        transformers_version="4.22.0.dev0",
    )
    write_json(path / "text_encoder" / "config.json", config | older)
    return model


def older_names(tensors):
    """The VAE's attention as published files name it."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in names.items():
        tensors = {key.replace(f".{new}.", f".{old}."): value for key, value in tensors.items()}
    return tensors


def write_index(path, scheduler):
    index = dict(
        _class_name="StableDiffusionPipeline",
        _diffusers_version="0.6.0",
        feature_extractor=[None, None],
        safety_checker=[None, None],
        scheduler=["diffusers", scheduler],
        text_encoder=["transformers", "CLIPTextModel"],
        tokenizer=["transformers", "CLIPTokenizer"],
        unet=["diffusers", "UNet2DConditionModel"],
        vae=["diffusers", "AutoencoderKL"],
    )
    write_json(path / "model_index.json", index)
    write_json(path / "prompts.json", PROMPTS)


def prompt_ids(pipeline):
    def encode(text):
        settings = dict(padding="max_length", truncation=True, return_tensors="pt")
        return pipeline.tokenizer(text, max_length=12, **settings).input_ids

    return dict(
        prompt_ids=encode(PROMPTS["prompt"]),
        negative_ids=encode(PROMPTS["negative"]),
    )


def text_to_picture(pipeline, inputs):
    latents = pipeline(
        PROMPTS["prompt"],
        negative_prompt=PROMPTS["negative"],
        num_inference_steps=PROMPTS["steps"],
        guidance_scale=PROMPTS["guidance"],
        latents=inputs["latents"].clone(),
        output_type="latent",
    ).images
    picture = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return {"pipeline.latents": latents, "pipeline.picture": picture}


def picture_to_picture(pipeline, inputs):
    """From the mean of the picture's latents, not from a sample, and with the given noise.

    The pipeline takes what has four channels for latents. PNDM begins with the timesteps that are
    left, of which none is doubled here, and treats the second one as the doubled one all the same.
    """
    latents = pipeline.vae.encode(inputs["img2img_picture"]).latent_dist.mode()
    pipeline_stable_diffusion_img2img.randn_tensor = lambda *_, **__: inputs["img2img_noise"]
    other = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    latents = other(
        PROMPTS["prompt"],
        negative_prompt=PROMPTS["negative"],
        image=latents * pipeline.vae.config.scaling_factor,
        strength=PROMPTS["strength"],
        num_inference_steps=PROMPTS["steps"],
        guidance_scale=PROMPTS["guidance"],
        output_type="latent",
    ).images
    return {"img2img.latents": latents}


def unet_stages(unet, inputs):
    modules = {"conv_in": unet.conv_in, "mid": unet.mid_block}
    modules |= {f"down.{i}": block for i, block in enumerate(unet.down_blocks)}
    modules |= {f"up.{i}": block for i, block in enumerate(unet.up_blocks)}
    call = lambda: unet(inputs["sample"], inputs["timesteps"], inputs["states"]).sample
    return {f"unet.{name}": value for name, value in recorded(modules, call).items()}


def finish(path, parts, inputs, run):
    """Reads the folder as any other and writes what its pipeline gives."""
    settings = dict(dtype=torch.float32, safety_checker=None)
    pipeline = StableDiffusionPipeline.from_pretrained(path, **settings)
    pipeline.set_progress_bar_config(disable=True)
    for name, model in parts.items():
        same_weights(getattr(pipeline, name), model)
    assert pipeline.vae.config.scaling_factor == 0.18215
    inputs = prompt_ids(pipeline) | inputs
    with torch.no_grad():
        low = run(pipeline, inputs)
        with exact_timesteps():
            high = run(in_64_bits(pipeline), doubled(inputs))
    # What a run of many steps may be off by is no measure of a layer.
    parts = {name.split(".")[0] for name in high}
    gaps = {part: gap_between(*(within(part, outputs) for outputs in (low, high))) for part in parts}
    write_reference(path / "reference.safetensors", inputs, high, gaps)
    report(path, max(gaps.values()))


def within(part, outputs):
    return {name: value for name, value in outputs.items() if name.split(".")[0] == part}


def text_states(pipeline, inputs):
    states = {}
    for name, ids in [("text", "prompt_ids"), ("text.negative", "negative_ids")]:
        output = pipeline.text_encoder(inputs[ids], output_hidden_states=True)
        states |= hidden_states(output, f"{name}.") | {f"{name}.last": output.last_hidden_state}
    return states


def vae_stages(vae, inputs):
    encoder, decoder = vae.encoder, vae.decoder
    down = {f"down.{i}": block for i, block in enumerate(encoder.down_blocks)}
    up = {f"up.{i}": block for i, block in enumerate(decoder.up_blocks)}
    encode = lambda: vae.encode(inputs["vae_pictures"]).latent_dist.mean
    decode = lambda: vae.decode(inputs["vae_latents"]).sample
    encoded = recorded({"mid": encoder.mid_block} | down, encode)
    decoded = recorded({"mid": decoder.mid_block} | up, decode)
    stages = {f"vae.encoder.{name}": value for name, value in encoded.items()}
    return stages | {f"vae.decoder.{name}": value for name, value in decoded.items()}


def every_stage(pipeline, inputs):
    """The layers of all parts, and what they make together of a prompt."""
    return (
        text_states(pipeline, inputs)
        | unet_stages(pipeline.unet, inputs)
        | vae_stages(pipeline.vae, inputs)
        | text_to_picture(pipeline, inputs)
    )


def draws(seed, **shapes):
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return drawn | dict(timesteps=torch.tensor([3.0, 731.0]))


def sd1():
    path = folder("sd1")
    size = vocabularies.write_byte_pairs(path / "tokenizer", 12)
    text_encoder = write_text_encoder(path, size, 201, "quick_gelu")
    weights = path / "text_encoder" / "model.safetensors"
    older = {"text_model.embeddings.position_ids": positions(12)}
    prefixed = lambda tensors: {f"text_model.{key}": value for key, value in tensors.items()}
    rewrite(weights, lambda tensors: prefixed(tensors) | older)

    unet = spread(UNet2DConditionModel(**UNET, **BLOCKS), 203)
    unet.save_pretrained(path / "unet")
    written = dict(_class_name="UNet2DConditionModel", _diffusers_version="0.6.0")
    write_json(path / "unet" / "config.json", written | UNET | BLOCKS)

    vae = spread(AutoencoderKL(**VAE), 205)
    vae.save_pretrained(path / "vae")
    rewrite(path / "vae" / "diffusion_pytorch_model.safetensors", older_names)
    written = dict(_class_name="AutoencoderKL", _diffusers_version="0.6.0")
    write_json(path / "vae" / "config.json", written | VAE)

    written = dict(_class_name="PNDMScheduler", _diffusers_version="0.6.0")
    write_json(path / "scheduler" / "scheduler_config.json", written | SCHEDULE)
    write_index(path, PNDMScheduler.__name__)

    inputs = draws(
        207,
        latents=(1, 4, 8, 8),
        sample=(2, 4, 8, 8),
        states=(2, 5, 12),
        vae_latents=(1, 4, 8, 8),
        vae_pictures=(1, 3, 16, 16),
        img2img_picture=(1, 3, 16, 16),
        img2img_noise=(1, 4, 8, 8),
    )
    inputs["img2img_picture"] = inputs["img2img_picture"].tanh()

    def run(pipeline, inputs):
        return every_stage(pipeline, inputs) | picture_to_picture(pipeline, inputs)

    finish(path, dict(text_encoder=text_encoder, unet=unet, vae=vae), inputs, run)


def sd2():
    path = folder("sd2")
    # Filled up with the token of id 0, as published.
    size = vocabularies.write_byte_pairs(path / "tokenizer", 12, pad="!")
    text_encoder = write_text_encoder(path, size, 209, "gelu")

    heads = dict(attention_head_dim=[2, 4], use_linear_projection=True)
    unet = spread(UNet2DConditionModel(**(UNET | BLOCKS | heads)), 211)
    unet = rounded(unet, torch.float16)
    unet.half().save_pretrained(path / "unet")
    unet.float()

    vae = spread(AutoencoderKL(**VAE), 213)
    vae.save_pretrained(path / "vae")

    written = dict(_class_name="DDIMScheduler", _diffusers_version="0.8.0")
    schedule = SCHEDULE | dict(prediction_type="v_prediction")
    write_json(path / "scheduler" / "scheduler_config.json", written | schedule)
    write_index(path, DDIMScheduler.__name__)

    inputs = draws(
        215,
        latents=(1, 4, 8, 8),
        sample=(2, 4, 8, 8),
        states=(2, 5, 12),
        vae_latents=(1, 4, 8, 8),
        vae_pictures=(1, 3, 16, 16),
    )

    finish(path, dict(text_encoder=text_encoder, unet=unet, vae=vae), inputs, every_stage)


def write():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    sd1()
    sd2()
