"""Fixtures of models/tests/{diffusion,samplers}.rs: tiny models and schedulers of diffusers.

    pip install torch==2.15.0 diffusers==0.42.1 safetensors==0.8.0
    OMP_NUM_THREADS=1 python tests/reference/diffusion.py

Writes models/tests/fixtures/{unet_sd1,unet_sd2,vae,vae_plain}.safetensors: random weights under
diffusers' names; inputs and expected outputs beside them under `in.` and `out.`; the metadata hold
the configuration and `gap`, the largest difference between the outputs in 32 and in 64 bits (the
expected ones are those in 64, stored in 32).

Writes models/tests/fixtures/samplers.json: for every scheduler, prediction type, spacing and beta
schedule the sample after each step, where the model is `model` below.
"""

import json
import pathlib

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from diffusers.schedulers import scheduling_ddpm
from safetensors.torch import save_file

FIXTURES = pathlib.Path(__file__).parents[2] / "models" / "tests" / "fixtures"


def spread(model, seed):
    """Random weights of a size at which every part of the model shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            norm = parameter.dim() == 1 and bool((parameter == 1).all())
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 16
            parameter.copy_(1 + 0.2 * noise if norm else noise * fan_in**-0.5)
    return model.eval()


def write(name, model, config, inputs, run):
    with torch.no_grad():
        low = run(model, inputs)
        doubled = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        high = run(model.double(), doubled)
    gap = max((low[key].double() - high[key]).abs().max().item() for key in low)
    tensors = dict(model.float().state_dict())
    tensors |= {"in." + key: value for key, value in inputs.items()}
    tensors |= {"out." + key: value.float() for key, value in high.items()}
    tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
    path = FIXTURES / f"{name}.safetensors"
    save_file(tensors, path, {"config": json.dumps(config), "gap": f"{gap:.3e}"})
    print(f"{path.name}: {path.stat().st_size} bytes, gap {gap:.1e}")


def first(output):
    return output[0] if isinstance(output, tuple) else output


def recorded(modules, call):
    """The outputs of `modules` while `call` runs."""
    outputs = {}
    hooks = [
        module.register_forward_hook(
            lambda _module, _input, output, name=name: outputs.update({name: first(output)})
        )
        for name, module in modules.items()
    ]
    outputs["sample"] = call()
    for hook in hooks:
        hook.remove()
    return outputs


def unet(name, seed, size, config):
    model = spread(UNet2DConditionModel(**config), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    inputs = dict(
        sample=torch.randn(2, config["in_channels"], size, size, generator=generator),
        timesteps=torch.tensor([3.0, 731.0]),
        states=torch.randn(2, 5, config["cross_attention_dim"], generator=generator),
        mask=torch.tensor([[1] * 5, [1] * 3 + [0] * 2]),
    )

    def run(model, inputs):
        modules = {"conv_in": model.conv_in, "time": model.time_embedding, "mid": model.mid_block}
        modules |= {f"down.{i}": block for i, block in enumerate(model.down_blocks)}
        modules |= {f"up.{i}": block for i, block in enumerate(model.up_blocks)}

        def call():
            return model(
                inputs["sample"],
                inputs["timesteps"],
                inputs["states"],
                encoder_attention_mask=inputs["mask"].bool(),
            ).sample

        plain = model(inputs["sample"], inputs["timesteps"], inputs["states"]).sample
        return recorded(modules, call) | {"plain": plain}

    write(name, model, config, inputs, run)


def unets():
    unet(
        "unet_sd1",
        1,
        8,
        dict(
            sample_size=8,
            in_channels=3,
            out_channels=2,
            down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
            up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
            block_out_channels=[8, 12],
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=6,
            transformer_layers_per_block=2,
            attention_head_dim=2,
        ),
    )
    unet(
        "unet_sd2",
        3,
        4,
        dict(
            sample_size=4,
            in_channels=4,
            out_channels=4,
            down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            block_out_channels=[8, 8],
            layers_per_block=2,
            norm_num_groups=4,
            cross_attention_dim=6,
            attention_head_dim=[2, 4],
            use_linear_projection=True,
            flip_sin_to_cos=False,
            freq_shift=1,
        ),
    )


def vae(name, seed, config):
    model = spread(AutoencoderKL(**config), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    latent = config["latent_channels"]
    inputs = dict(
        pictures=torch.randn(2, 3, 8, 8, generator=generator),
        latents=torch.randn(2, latent, 4, 4, generator=generator),
        noise=torch.randn(2, latent, 4, 4, generator=generator),
    )

    def run(model, inputs):
        encoder, decoder = model.encoder, model.decoder
        modules = {"encoder.mid": encoder.mid_block, "decoder.mid": decoder.mid_block}
        modules |= {f"encoder.down.{i}": block for i, block in enumerate(encoder.down_blocks)}
        modules |= {f"decoder.up.{i}": block for i, block in enumerate(decoder.up_blocks)}
        latent = model.encode(inputs["pictures"]).latent_dist
        outputs = recorded(modules, lambda: model.decode(inputs["latents"]).sample)
        encoded = recorded(modules, lambda: model.encode(inputs["pictures"]).latent_dist.mean)
        outputs |= {key: value for key, value in encoded.items() if key.startswith("encoder")}
        return outputs | {
            "mean": latent.mean,
            "logvar": latent.logvar,
            "latent": latent.mean + latent.std * inputs["noise"],
            "kl": latent.kl(),
        }

    write(name, model, config, inputs, run)


def vaes():
    shared = dict(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[4, 8],
        layers_per_block=1,
        norm_num_groups=4,
    )
    vae("vae", 5, shared | dict(latent_channels=4, scaling_factor=0.5))
    plain = dict(
        latent_channels=2,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    vae("vae_plain", 7, shared | plain)


def model(x, t):
    """Of the size of noise, and different for every sample and timestep."""
    return 0.7 * torch.sin(1.3 * x + float(t) / 300) + 0.2 * x


KINDS = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "pndm": PNDMScheduler,
}
START = torch.tensor([[[[-1.2, -0.3], [0.4, 1.5]]]], dtype=torch.float64)


def noise(step):
    """What stands for the noise of a step."""
    return torch.tensor([[[[0.5, -1.0], [1.5, -0.2]]]], dtype=torch.float64) * (1 + step % 3) / 2


def trajectory(kind, schedule, sampler, steps):
    accepted = KINDS[kind].__init__.__wrapped__.__code__.co_varnames
    settings = {key: value for key, value in sampler.items() if key in accepted}
    clip = sampler.get("clip_sample_range")
    if kind in ("ddpm", "ddim"):
        settings |= dict(clip_sample=clip is not None, clip_sample_range=clip or 1.0)
    scheduler = KINDS[kind](**schedule, **settings)
    # The products in 64 bits; diffusers has them in 32.
    scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
    if kind in ("ddim", "pndm") and not settings.get("set_alpha_to_one", kind == "ddim"):
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(steps)
    sample = START * float(scheduler.init_noise_sigma)
    samples = []
    for step, t in enumerate(scheduler.timesteps):
        output = model(scheduler.scale_model_input(sample, t), t)
        if kind == "ddpm":
            scheduling_ddpm.randn_tensor = lambda *_args, **_settings: noise(step)
        extra = {}
        if kind == "ddim" and sampler.get("eta"):
            extra = dict(eta=sampler["eta"], variance_noise=noise(step))
        sample = scheduler.step(output, t, sample, **extra).prev_sample.double()
        samples.append([float(f"{value:.8g}") for value in sample.flatten().tolist()])
    return dict(
        kind=kind,
        schedule=schedule,
        sampler=sampler,
        steps=steps,
        timesteps=[float(f"{t:.8g}") for t in scheduler.timesteps.tolist()],
        init_noise_sigma=float(scheduler.init_noise_sigma),
        samples=samples,
    )


def samplers():
    schedules = {
        "linear": dict(beta_start=0.0001, beta_end=0.02),
        "scaled_linear": dict(beta_start=0.00085, beta_end=0.012),
        "squaredcos_cap_v2": {},
    }
    cases = []
    for kind in KINDS:
        for betas, limits in schedules.items():
            for prediction in ("epsilon", "v_prediction", "sample"):
                if kind == "pndm" and prediction == "sample":
                    continue
                for spacing in ("leading", "linspace", "trailing"):
                    schedule = dict(
                        num_train_timesteps=1000,
                        beta_schedule=betas,
                        prediction_type=prediction,
                        **limits,
                    )
                    sampler = dict(timestep_spacing=spacing)
                    if kind == "pndm":
                        sampler |= dict(skip_prk_steps=True, set_alpha_to_one=True)
                    if spacing == "leading":
                        sampler["steps_offset"] = 1
                    cases.append(trajectory(kind, schedule, sampler, 7))
    schedule = dict(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        **schedules["scaled_linear"],
    )
    leading = dict(timestep_spacing="leading", steps_offset=1)
    for kind, extra, steps in [
        ("ddpm", dict(clip_sample_range=1.0), 9),
        ("ddim", dict(clip_sample_range=0.5, set_alpha_to_one=False), 9),
        ("ddim", dict(eta=0.6), 9),
        ("dpmpp_2m", {}, 20),
        ("dpmpp_2m", dict(final_sigmas_type="sigma_min"), 9),
        ("dpmpp_2m", dict(final_sigmas_type="sigma_min", lower_order_final=False), 9),
        ("euler", dict(final_sigmas_type="sigma_min"), 9),
        ("pndm", dict(skip_prk_steps=False, set_alpha_to_one=False), 9),
        ("pndm", dict(skip_prk_steps=True, set_alpha_to_one=False), 9),
    ]:
        cases.append(trajectory(kind, schedule, leading | extra, steps))
    spread_out = []
    for kind in KINDS:
        for spacing in ("leading", "linspace", "trailing"):
            for steps in (1, 2, 3, 7, 16, 30, 37, 64, 300, 500):
                settings = dict(timestep_spacing=spacing)
                if kind == "pndm":
                    settings["skip_prk_steps"] = True
                scheduler = KINDS[kind](**settings)
                scheduler.set_timesteps(steps)
                timesteps = scheduler.timesteps.double().numpy()
                spread_out.append(
                    dict(
                        kind=kind,
                        spacing=spacing,
                        steps=steps,
                        evaluations=len(timesteps),
                        sum=float(timesteps.sum()),
                        sum_of_squares=float((timesteps**2).sum()),
                    )
                )
    path = FIXTURES / "samplers.json"
    lines = ",\n".join(json.dumps(case) for case in cases)
    spacings = ",\n".join(json.dumps(case) for case in spread_out)
    path.write_text(f'{{"trajectories": [\n{lines}\n],\n"spacings": [\n{spacings}\n]}}\n')
    print(f"{path.name}: {path.stat().st_size} bytes, {len(cases)} trajectories")


if __name__ == "__main__":
    torch.set_num_threads(1)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    unets()
    vaes()
    samplers()
