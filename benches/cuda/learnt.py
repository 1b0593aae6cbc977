"""The kernels of models/src/kernels/cuda/learnt on a processor (software/emulation.h) beside PyTorch's gradients in 64 bits.

    python benches/cuda/learnt.py            needs g++, torch and numpy, no card
    python benches/cuda/learnt.py --compile  compiles them by NVRTC (nvrtc.py) in place of that

Products and convolutions are those of products.py."""

import ctypes
import hashlib
import itertools
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent
KERNELS = HERE.parents[1] / "models/src/kernels/cuda/learnt"
FOLDER = pathlib.Path(tempfile.mkdtemp())
ACTIVATIONS = [
    lambda x: x, F.gelu, lambda x: F.gelu(x, approximate="tanh"), lambda x: x * torch.sigmoid(1.702 * x), torch.relu,
    F.silu,
]  # fmt: skip
ADAMW = ("rate", "beta_1", "beta_2", "shrink", "by_first", "by_second")


def files(name):
    """What the text of a file's kernels is made of."""
    if name == "attention":
        return ["learnt/attention.cu", "learnt/dropout.cu"]
    return ["activation.cu", "learnt/common.cu", "learnt/dropout.cu", f"learnt/{name}.cu"]


def build(name, **defines):
    """The kernels of a file, for these defines."""
    text = "".join((KERNELS.parent / file).read_text() for file in files(name))
    # As software/nvrtc.cpp.
    text = text.replace("extern __shared__ __align__(1024) unsigned char shared[];", "").replace("__shared__", "static")
    names = re.findall(r'extern "C" __global__(?: __launch_bounds__\([^)]*\))? void (\w+)\(', text)
    lines = [f"#define {key} {value}" for key, value in {"HALF": 0, **defines}.items()] + ['#include "emulation.h"', text]
    text = "\n".join(lines + [f"EXPORT({kernel})" for kernel in names])
    path = FOLDER / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not path.with_suffix(".so").exists():
        path.with_suffix(".cpp").write_text(text)
        flags = ["-std=c++20", "-O2", "-fno-strict-aliasing", "-w", "-shared", "-fPIC", f"-I{HERE}/software"]
        subprocess.run(["g++", *flags, path.with_suffix(".cpp"), "-o", path.with_suffix(".so")], check=True)
    return ctypes.CDLL(path.with_suffix(".so"))


def bits(x):
    return struct.unpack("I", struct.pack("f", x))[0]


def launch(kernels, name, grid, threads, buffers, info):
    pointers = [ctypes.c_void_p(buffer.ctypes.data) for buffer in buffers]
    info = (ctypes.c_uint64 * len(info))(*info)
    arguments = [ctypes.addressof(pointer) for pointer in pointers] + [ctypes.addressof(info)]
    getattr(kernels, f"run_{name}")((ctypes.c_void_p * len(arguments))(*arguments), *grid, threads, 1, 1)


def each(kernels, name, buffers, **of):
    launch(kernels, name, (up(of["count"], 1024), 1, 1), 256, buffers, info(**of))


def info(rows=0, c=0, chunk=0, count=0, groups=0, epsilon=0.0, pictures=(0,) * 6, mask=(0, 0, 0), **adamw):
    numbers = [bits(adamw.get(name, 0.0)) for name in ADAMW]
    return [rows, c, chunk, count, groups, bits(epsilon), *numbers, *pictures, *mask]


def masked(key, dropped, count):
    """What a kernel is told of a mask, and the mask: Philox 4x32-10 (Salmon et al. 2011)."""
    x = [np.arange(count, dtype=np.uint64)] + [np.zeros(count, np.uint64)] * 3
    keys = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        left, right = x[0] * np.uint64(0xD2511F53), x[2] * np.uint64(0xCD9E8D57)
        high = lambda y: y >> np.uint64(32)
        low = lambda y: y & np.uint64(0xFFFFFFFF)
        x = [high(right) ^ x[1] ^ np.uint64(keys[0]), low(right), high(left) ^ x[3] ^ np.uint64(keys[1]), low(left)]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    if key == 0:
        assert x[0][0] == 0x6627E8D5  # the authors' known answer
    keep = 65536 / (65536 - dropped)
    factors = np.where(x[0] >> np.uint64(16) >= dropped, np.float32(keep), np.float32(0))
    return (key, dropped, bits(keep)), torch.from_numpy(factors)


def up(x, by):
    return -(-x // by)


def floats(x):
    return x.detach().float().numpy().copy()


def halves(x):
    return x.detach().bfloat16().view(torch.int16).numpy().astype(np.uint16).copy()


def of_halves(x):
    return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16).float()


def room(*shape):
    return np.full(shape, np.nan, np.float32)


def learnt(*shape, scale=1.0, shift=0.0):
    return (torch.randn(shape).bfloat16().double() * scale + shift).requires_grad_()


def check(what, bound, *pairs):
    """Each number is off by less than `bound` of their root mean square."""
    gaps = []
    for found, expected in pairs:
        found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).detach().double()
        gap = (found.reshape(expected.shape) - expected).abs().max() / expected.square().mean().sqrt().clamp(min=1e-6)
        gaps.append(gap.item())
    print(f"{what}: off by {', '.join(f'{gap:.1e}' for gap in gaps)}", flush=True)
    assert all(gap < bound for gap in gaps), what


def attention(b, n, m, heads, width, bias, drop=0):
    defines = {"BIAS": int(bias is not None), "DROP": int(drop > 0), "VECTOR": int(n % 2)}
    kernels, c = build("attention", D=width, **defines), heads * width
    mask_of, factors = masked(drop and 0x123456789ABCDEF, drop, b * heads * n * m)
    q, k, v = learnt(b, n, c), learnt(b, m, c), learnt(b, m, c)
    split = lambda x: x.view(b, -1, heads, width).transpose(1, 2)
    logits, mask, steps = split(q) @ split(k).transpose(2, 3) / width**0.5, np.zeros(1, np.float32), (0, 0)
    if bias is not None:
        hidden = torch.where(torch.rand(*bias, m) < 0.3, -1e4, 0.0) + torch.randn(*bias, m)
        hidden[0, 0] = -1e9  # of all keys: the mean of the values
        # In 32 bits nothing is left of a logit beside that.
        logits = torch.where(hidden[:, None] == -1e9, logits - logits.detach(), logits + hidden[:, None])
        mask = floats(hidden)
        steps = (0 if bias[0] == 1 else bias[1] * m, 0 if bias[1] == 1 else m)
    out = (logits.softmax(-1) * factors.view(b, heads, n, m).double() @ split(v)).transpose(1, 2).reshape(b, n, c)
    slope = torch.randn(b, n, c)
    out.backward(slope.double())
    given = [floats(x) for x in (q, k, v)] + [mask]
    found, logs, deltas = room(b, n, c), room(b, heads, n, 2), room(b, heads, n)
    to_q, to_k, to_v, g = room(b, n, c), room(b, m, c), room(b, m, c), floats(slope)
    of = [b, n, m, heads, bits(width**-0.5), *steps, *mask_of]
    launch(kernels, "attention_forward", (up(n, 64), heads, b), 128, [*given, found, logs], of)
    launch(kernels, "attention_deltas", (up(b * heads * n, 4), 1, 1), 128, [found, g, deltas], of)
    given += [g, logs, deltas]
    launch(kernels, "attention_to_query", (up(n, 64), heads, b), 128, [*given, to_q], of)
    launch(kernels, "attention_to_keys", (up(m, 64), heads, b), 128, [*given, to_k, to_v], of)
    what = f"attention {b} x {n} to {m}, {heads} heads of {width}, bias {bias}, dropped {drop / 65536:.2f}"
    check(what, 1e-1, (found, out), (to_q, q.grad), (to_k, k.grad), (to_v, v.grad))


def add_chunks(sums, total):
    of = info(chunk=len(sums), count=total.size)
    launch(build("elementwise", ACT=0), "add_chunks", (up(total.size, 256), 1, 1), 256, [sums, total], of)


def columns(act, rows, c, chunk):
    kernels, x, slope = build("elementwise", ACT=act), learnt(rows, c), torch.randn(rows, c)
    y = ACTIVATIONS[act](x)
    y.backward(slope.double())
    found, kept, to_x, count = room(rows, c), np.zeros((rows, c), np.uint16), room(rows, c), rows * c
    each(kernels, "activate_keeping", [floats(x), found, kept], count=count)
    assert (kept == halves(x)).all()
    each(kernels, "activate_backward", [floats(x), floats(slope), to_x], count=count)
    rounded, sums, total = np.zeros((rows, c), np.uint16), room(up(rows, chunk), c), room(c)
    of = info(rows=rows, c=c, chunk=chunk)
    buffers = [floats(slope), kept, rounded, sums]
    launch(kernels, "round_columns", (up(c, 32), len(sums), 1), 256, buffers, of)
    add_chunks(sums, total)
    what = f"activation {act} and sums of {rows} x {c}"
    check(what, 1e-5, (found, y), (to_x, x.grad), (total, x.grad.sum(0)))
    check(what, 2e-2, (of_halves(rounded), x.grad))


def layer_norm(rows, c, chunk):
    kernels, x, gamma, beta = build("norm", ACT=0), learnt(rows, c, scale=3, shift=5), learnt(c), learnt(c)
    slope, y = torch.randn(rows, c), F.layer_norm(x, (c,), gamma, beta, 1e-5)
    y.backward(slope.double())
    found, moments, to_x, sums, total = room(rows, c), room(rows, 2), room(rows, c), room(up(rows, chunk), 2, c), room(2, c)
    of = info(rows=rows, c=c, chunk=chunk, epsilon=1e-5)
    given = [floats(x), floats(gamma), floats(beta)]
    launch(kernels, "layer_forward", (up(rows, 4), 1, 1), 128, [*given, found, moments], of)
    given += [moments, floats(slope)]
    launch(kernels, "layer_backward", (up(rows, 4), 1, 1), 128, [*given, to_x], of)
    launch(kernels, "layer_columns", (up(c, 32), len(sums), 1), 256, [*given, sums], of)
    add_chunks(sums, total)
    pairs = [(found, y), (to_x, x.grad), (total[0], gamma.grad), (total[1], beta.grad)]
    check(f"layer norm of {rows} x {c}", 1e-4, *pairs)


def group_norm(act, b, pixels, c, groups):
    kernels, x, gamma, beta = build("norm", ACT=act), learnt(b, pixels, c, scale=2, shift=3), learnt(c), learnt(c)
    y = ACTIVATIONS[act](F.group_norm(x.transpose(1, 2), groups, gamma, beta, 1e-6).transpose(1, 2))
    slope = torch.randn(b, pixels, c)
    y.backward(slope.double())
    found, moments, to_x, sums, total = room(b, pixels, c), room(b, groups, 2), room(b, pixels, c), room(b, 2, c), room(2, c)
    of, given = info(rows=pixels, c=c, groups=groups, epsilon=1e-6), [floats(x), floats(gamma), floats(beta)]
    launch(kernels, "group_forward", (groups, b, 1), 256, [*given, found, moments], of)
    given += [moments, floats(slope)]
    launch(kernels, "group_backward", (groups, b, 1), 256, [*given, to_x], of)
    launch(kernels, "group_columns", (up(c, 32), b, 1), 256, [*given, sums], of)
    add_chunks(sums, total)
    pairs = [(found, y), (to_x, x.grad), (total[0], gamma.grad), (total[1], beta.grad)]
    check(f"group norm of {b} x {pixels} x {c}, {groups} groups, activation {act}", 1e-4, *pairs)


def gate(rows, c):
    kernels, x, slope = build("elementwise", ACT=1), learnt(rows, 2 * c), torch.randn(rows, c)
    y = x[:, :c] * F.gelu(x[:, c:])
    y.backward(slope.double())
    found, to_x = room(rows, c), room(rows, 2 * c)
    each(kernels, "gate", [floats(x), found], count=rows * c, c=c)
    each(kernels, "gate_backward", [floats(x), floats(slope), to_x], count=rows * c, c=c)
    check(f"gate of {rows} x {c}", 1e-5, (found, y), (to_x, x.grad))


def convolution(step, before, h, w, b=2, channels=3, out=5):
    """What the products of a convolution and of its gradients are given; they themselves are PyTorch's here."""
    kernels, x, weight = build("conv3x3", ACT=0), learnt(b, h, w, channels), learnt(out, channels, 3, 3)
    padded = F.pad(x.permute(0, 3, 1, 2), (before, 1, before, 1))
    y = F.conv2d(padded, weight, stride=step).permute(0, 2, 3, 1)
    (_, out_h, out_w, _), slope = y.shape, torch.randn(y.shape).bfloat16()
    y.backward(slope.double())
    taps_of, pixels = np.zeros((out, 3, 3, channels), np.uint16), np.zeros((b, out_h, out_w, 9, channels), np.uint16)
    each(kernels, "round_taps", [floats(weight), taps_of], count=taps_of.size, c=channels)
    sizes = (h, w, out_h, out_w, step, before)
    each(kernels, "taps", [halves(x), pixels], count=pixels.size, c=channels, pictures=sizes)
    rows = of_halves(pixels).view(-1, 9 * channels)
    product = (slope.float().view(-1, out).T @ rows).contiguous().numpy()
    to_weight = room(out, channels, 3, 3)
    each(kernels, "taps_last", [product, to_weight], count=to_weight.size, c=channels)
    turned, wide = np.zeros((channels, 3, 3, out), np.uint16), [(side - 1) * step + 1 for side in (out_h, out_w)]
    each(kernels, "turn_taps", [taps_of, turned], count=turned.size, c=channels, rows=out)
    spread, back = np.zeros((b, *wide, out), np.uint16), np.zeros((b, h, w, 9, out), np.uint16)
    sizes = (out_h, out_w, *wide, step, 0)
    each(kernels, "spread", [halves(slope), spread], count=spread.size, c=out, pictures=sizes)
    each(kernels, "taps", [spread, back], count=back.size, c=out, pictures=(*wide, h, w, 1, 2 - before))
    to_x = of_halves(back).view(-1, 9 * out) @ of_halves(turned).view(channels, -1).T
    found = rows @ of_halves(taps_of).view(out, -1).T
    what = f"convolution of {h} x {w} by steps of {step}, {before} before"
    check(what, 1e-5, (found, y), (to_weight, weight.grad), (to_x, x.grad))


def dropout(count, dropped):
    kernels, x = build("elementwise", ACT=0), torch.randn(count)
    mask, factors = masked(1 << 40 | 5, dropped, count)
    found = room(count)
    each(kernels, "drop", [floats(x), found], count=count, mask=mask)
    share = (factors == 0).float().mean().item()
    print(f"dropout: {share:.3f} of {count} numbers dropped, asked for {dropped / 65536:.3f}")
    check("dropout", 1e-6, (found, x * factors))


def adamw(count, time):
    kernels = build("elementwise", ACT=0)
    weight, first, slope, second = [torch.randn(count) for _ in range(4)]
    second, outputs = second.square(), [room(count) for _ in range(3)]
    update = {"rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999, "shrink": 1 - 1e-3 * 0.05}
    update |= {"by_first": 1 - 0.9**time, "by_second": 1 - 0.999**time}
    given = [floats(x) for x in (weight, first, second, slope)]
    each(kernels, "adamw", [*given, *outputs], count=count, epsilon=1e-8, **update)
    parameter = torch.nn.Parameter(weight.double())
    optimizer = torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0.05)
    state = {"step": torch.tensor(time - 1.0), "exp_avg": first.double(), "exp_avg_sq": second.double()}
    optimizer.state[parameter], parameter.grad = state, slope.double()
    optimizer.step()
    check("AdamW", 1e-5, *zip(outputs, (parameter, state["exp_avg"], state["exp_avg_sq"]), strict=True))


def compile_all():
    import nvrtc

    activations = range(len(ACTIVATIONS))
    texts = [(name, {"ACT": act}) for name in ("elementwise", "norm", "conv3x3") for act in activations]
    for width, bias, drop, vector in itertools.product((4, 12, 40, 64, 128), (0, 1), (0, 1), (0, 1)):
        texts.append(("attention", {"D": width, "BIAS": bias, "DROP": drop, "VECTOR": vector}))
    for name, defines in texts:
        nvrtc.compile(nvrtc.text({"HALF": 0, **defines}, *files(name)))
    print(f"{len(texts)} texts compile")


if __name__ == "__main__" and sys.argv[1:] == ["--compile"]:
    compile_all()
elif __name__ == "__main__":
    torch.manual_seed(1)
    for sizes in [
        (1, 64, 64, 1, 64, None), (2, 70, 33, 2, 64, (2, 1)), (1, 5, 130, 3, 40, (1, 5)), (2, 65, 65, 1, 24, None),
        (1, 20, 70, 2, 8, (1, 1)), (2, 64, 20, 4, 12, None), (1, 66, 66, 1, 128, (1, 66)), (1, 197, 197, 1, 64, None),
        (2, 70, 33, 2, 64, (2, 1), 6554), (1, 65, 64, 2, 12, None, 32768),
    ]:  # fmt: skip
        attention(*sizes)
    for act in range(len(ACTIVATIONS)):
        columns(act, 37, 50, 16)
        columns(act, 130, 33, 128)
    layer_norm(37, 50, 16)
    layer_norm(5, 768, 128)
    for act in (0, 5):
        group_norm(act, 3, 35, 24, 4)
    gate(13, 21)
    for sizes in [(1, 1, 5, 6), (2, 1, 6, 4), (2, 0, 6, 4), (2, 1, 7, 5)]:
        convolution(*sizes)
    dropout(5000, 6554)
    adamw(3000, 7)
