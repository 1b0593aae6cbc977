"""Checks attention.cu and norm.cu on a card against PyTorch, and times both.

    python benches/cuda/attention_norms.py [--no-time]

What is BAD, a summary of each kind and all timings are printed; every case goes to attention_norms.txt in OUT,
or where it is started."""

import ctypes, os, statistics, struct, sys, time
from concurrent.futures import ProcessPoolExecutor
import multiprocessing

import nvrtc

start = time.time()


def build(job):
    name, defines = job
    try:
        return nvrtc.compile(nvrtc.text(dict(defines), name))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


DS = (16, 24, 32, 40, 64, 80, 96, 128, 160, 256)


def choice(d):
    """ROWS, KEYS"""
    return (128, 64) if d <= 80 else (64, 64) if d <= 128 else (64, 32)


def attention_job(half, d, bias, rows, keys, warp_rows=16):
    return "attention.cu", (
        ("HALF", half),
        ("D", d),
        ("BIAS", bias),
        ("ROWS", rows),
        ("KEYS", keys),
        ("WARP_ROWS", warp_rows),
    )


def norm_job(half, vector, silu):
    return "norm.cu", (("HALF", half), ("VECTOR", vector), ("SILU", silu))


# b, heads, n, m, d and the (ROWS, KEYS, WARP_ROWS) to time; the first is the recommended one.
TIMED = [
    (2, 8, 4096, 4096, 40, [(128, 64, 16), (64, 64, 16), (128, 64, 32), (128, 96, 16), (128, 128, 16)]),
    (2, 8, 1024, 1024, 80, [(64, 64, 16), (128, 64, 16), (128, 64, 32)]),
    (2, 8, 4096, 4096, 80, [(128, 64, 16), (64, 64, 16), (128, 64, 32)]),
    (2, 8, 256, 256, 160, [(64, 32, 16), (32, 32, 16)]),
    (2, 8, 4096, 77, 40, [(128, 80, 16), (128, 64, 16), (64, 80, 16)]),
    (32, 8, 4096, 4096, 40, [(128, 64, 16), (64, 64, 16), (128, 64, 32), (128, 96, 16), (128, 128, 16)]),
    (2, 8, 4096, 4096, 64, [(128, 64, 16), (64, 64, 16), (128, 64, 32)]),
    (2, 8, 4096, 4096, 128, [(64, 64, 16), (128, 64, 16), (64, 32, 16), (128, 64, 32)]),
    (8, 12, 128, 128, 64, [(64, 64, 16), (128, 64, 16)]),
    (32, 12, 512, 512, 64, [(128, 64, 16), (64, 64, 16)]),
    (1, 1, 4096, 4096, 256, [(64, 32, 16), (32, 32, 16)]),
]
# Checked beside the recommended ones, so that no timed variant is an unchecked one.
OTHER = sorted({(d, v) for *_, d, vs in TIMED for v in vs if v != (*choice(d), 16)})
JOBS = (
    [attention_job(h, d, b, *choice(d)) for d in reversed(DS) for h in (0, 1) for b in (0, 1)]
    + [attention_job(0, d, 0, *v) for d, v in OTHER]
    + [norm_job(h, v, s) for h in (0, 1) for v in (1, 0) for s in (0, 1)]
)

with ProcessPoolExecutor(
    min(16, os.cpu_count() or 1), mp_context=multiprocessing.get_context("fork")
) as pool:
    cubins = dict(zip(JOBS, pool.map(build, JOBS)))
built = time.time() - start

import torch

F = torch.nn.functional
log = open(os.path.join(os.environ.get("OUT", "."), "attention_norms.txt"), "w")
counts = {}


def say(line, shown=True):
    log.write(line + "\n")
    log.flush()
    if shown:
        print(line, flush=True)


say(f"{len(JOBS)} variants compiled in {built:.1f} s")
for job, cubin in cubins.items():
    if isinstance(cubin, str):
        say(f"BAD compile {job}: {cubin[:600]}")

torch.backends.cuda.matmul.allow_tf32 = False
torch.manual_seed(0)
torch.zeros(1, device="cuda")
say(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
cuda = ctypes.CDLL("libcuda.so.1")
MULTIPROCESSORS = torch.cuda.get_device_properties(0).multi_processor_count


def must(code, what):
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(text))
        raise RuntimeError(f"{what}: {code} {text.value}")


functions = {}


def function(job, name, shared):
    """The kernel, let use `shared` bytes."""
    key = job, name, shared
    if key not in functions:
        cubin = cubins[job]
        if isinstance(cubin, str):
            raise RuntimeError("did not compile")
        module, f = ctypes.c_void_p(), ctypes.c_void_p()
        must(cuda.cuModuleLoadData(ctypes.byref(module), cubin), "load")
        must(cuda.cuModuleGetFunction(ctypes.byref(f), module, name.encode()), "function")
        must(cuda.cuFuncSetAttribute(f, 8, shared), "shared memory")
        functions[key] = f
    return functions[key]


def launcher(job, name, grid, block, shared, tensors, info):
    """A function that launches the kernel; what it needs is prepared here."""
    f = function(job, name, shared)
    values = [ctypes.c_void_p(t.data_ptr()) for t in tensors] + [(ctypes.c_uint64 * len(info))(*info)]
    pointers = (ctypes.c_void_p * len(values))(
        *[ctypes.cast(ctypes.pointer(v), ctypes.c_void_p) for v in values]
    )
    grid = tuple(grid) + (1,) * (3 - len(grid))

    def launch(_keep=(values, tensors)):
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        must(cuda.cuLaunchKernel(f, *grid, block, 1, 1, shared, stream, pointers, None), name)

    return launch


def bits(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


def ceil(a, b):
    return -(-a // b)


def attention(q, k, v, bias, out, b, heads, n, m, d, half, rows, keys, warp_rows=16):
    shared = (4 * keys + (rows if d * warp_rows > 2048 else 0)) * (32 * ceil(d, 16) + 16)
    strides = [0, 0] if bias is None else [bias.stride(i) if bias.shape[i] > 1 else 0 for i in (0, 1)]
    info = [n, m, heads, q.stride(1), k.stride(1), v.stride(1), bits(d**-0.5), *strides]
    job = attention_job(half, d, int(bias is not None), rows, keys, warp_rows)
    return launcher(
        job,
        "attention",
        (ceil(n, rows), heads, b),
        rows // warp_rows * 32,
        shared,
        [q, k, v, q if bias is None else bias, out],
        info,
    )


def judge(kind, text, out, expected, bound, untouched):
    """A line; `bound` holds element by element."""
    torch.cuda.synchronize()
    error = (out.float() - expected).abs()
    worst = (error / bound).max().item()
    whole = bool((untouched == 7).all())
    ok = worst <= 1 and whole
    note = "" if whole else " WROTE BEYOND ITS END"
    say(
        f"{'OK ' if ok else 'BAD'} {kind} {text}: max error {error.max().item():.2e}, {worst:.2f} of the bound{note}",
        not ok,
    )
    count = counts.setdefault(kind, [0, 0, 0.0])
    count[0 if ok else 1] += 1
    count[2] = max(count[2], worst) if worst == worst else worst


def attempt(kind, text, work):
    try:
        work()
    except Exception as error:
        say(f"BAD {kind} {text}: {type(error).__name__}: {str(error)[:300]}")
        counts.setdefault(kind, [0, 0, 0.0])[1] += 1


UNIT = {0: 2.0**-8, 1: 2.0**-11}  # half the distance of neighbours, relative
TYPE = {0: torch.bfloat16, 1: torch.float16}


def guarded(count, half):
    return torch.full((count + 256,), 7.0, device="cuda", dtype=TYPE[half])


def check_attention(kind, half, d, b, heads, n, m, mode, rows, keys, warp_rows=16, fused=False):
    text = (
        f"{['bf16', 'f16'][half]} d={d} b={b} heads={heads} n={n} m={m} bias={mode} {rows}/{keys}/{warp_rows}"
    )

    def work():
        width = heads * d
        q = torch.randn(b, n, width, device="cuda").to(TYPE[half])
        kv = torch.randn(b, m, 2 * width, device="cuda").to(TYPE[half])
        k, v = kv[..., :width], kv[..., width:]
        if not fused:
            k, v = k.contiguous(), v.contiguous()
        bias = None
        if mode:
            bias = 2 * torch.randn(b if mode in (3, 4) else 1, n if mode in (2, 4) else 1, m, device="cuda")
            if m > 3:  # as masks do
                bias[..., 1::5] = -float("inf")
                bias[..., 2::7] = torch.finfo(torch.float32).min
                bias[0, 0, :] = torch.finfo(torch.float32).min  # nothing seen: the mean
        out = guarded(b * n * width, half)
        attention(q, k, v, bias, out, b, heads, n, m, d, half, rows, keys, warp_rows)()
        part = lambda t, l: t.float().reshape(b, l, heads, d).transpose(1, 2)
        logits = part(q, n) @ part(k, m).transpose(-1, -2) * d**-0.5
        if bias is not None:
            logits = logits + bias[:, None]
        p = logits.softmax(-1)
        back = lambda t: t.transpose(1, 2).reshape(-1)
        expected, size = back(p @ part(v, m)), back(p @ part(v, m).abs())
        # Each weight is rounded once (UNIT of what the weights carry, `size`), then the result. The rest: f32
        # sums that matrix units cut rather than round, 2^exp good to 2 units of f32, f16's smallest weights.
        bound = (
            UNIT[half] * 1.02 * (size + expected.abs()) + 2e-4 * size + 1e-5 + (m * 2.0**-25 if half else 0)
        )
        judge(kind, text, out[: b * n * width], expected, bound, out[b * n * width :])

    attempt(kind, text, work)


SIZES = [
    (1, 1),
    (7, 7),
    (64, 64),
    (77, 257),
    (100, 77),
    (257, 100),
    (1, 1024),
    (1024, 77),
    (64, 7),
    (7, 4096),
]
for d in DS:
    for half in (0, 1):
        for n, m in SIZES:
            check_attention(f"attention d={d}", half, d, 2, 3, n, m, 0, *choice(d), fused=n == 77)
        for mode, (n, m) in enumerate([(77, 257), (257, 100), (100, 64), (130, 333)], 1):
            check_attention(f"attention with bias d={d}", half, d, 2, 3, n, m, mode, *choice(d))
    check_attention(f"attention with bias d={d}", 0, d, 2, 2, 1, 1, 4, *choice(d))
    check_attention(f"attention d={d}", 0, d, 1, 2, 4096, 4096, 0, *choice(d))
    check_attention(f"attention with bias d={d}", 1, d, 1, 2, 1024, 1024, 2, *choice(d))
for d, variant in OTHER:
    for n, m in ((77, 257), (300, 77), (4096, 1024)):
        check_attention("attention, other tiles", 0, d, 2, 2, n, m, 0, *variant)


def layer_norm(x, gamma, beta, out, rows, c, half, vector):
    return launcher(
        norm_job(half, vector, 0),
        "layer_norm",
        (ceil(rows, 4),),
        128,
        0,
        [x, gamma, beta, out],
        [rows, c, bits(1e-5)],
    )


def group_norm(x, gamma, beta, out, b, pixels, c, groups, chunk, half, vector, silu):
    """Launches both kernels."""
    chunks = ceil(pixels, chunk)
    sums = torch.full((b * chunks * groups * 3,), 7.0, device="cuda")
    info = [b, pixels, c, groups, bits(1e-6), chunk]
    job = norm_job(half, vector, silu)
    first = launcher(
        job, "group_norm_sums", (chunks, b), 512, 8 * max(4096 if vector else 512, c), [x, sums], info
    )
    second = launcher(
        job,
        "group_norm",
        (chunks, b),
        512,
        4 * (3 * max(512, groups) + 2 * groups),
        [x, sums, gamma, beta, out],
        info,
    )
    return lambda: (first(), second())


def geglu(x, out, rows, c, half, vector):
    return launcher(
        norm_job(half, vector, 0),
        "geglu",
        (ceil(rows * c, 2048 if vector else 256),),
        256,
        0,
        [x, out],
        [rows, c],
    )


def norm_bound(expected, half):
    # The result is rounded once; f32 does the rest, a few units of numbers of up to some tens of deviations.
    return UNIT[half] * 1.01 * expected.abs() + 1e-4


def check_layer_norm(half, vector, rows, c):
    kind, text = "layer_norm", f"{['bf16', 'f16'][half]} vector={vector} rows={rows} c={c}"

    def work():
        x = (2 * torch.randn(rows, c, device="cuda") + 5).to(TYPE[half])
        gamma, beta = torch.randn(c, device="cuda"), torch.randn(c, device="cuda")
        out = guarded(rows * c, half)
        layer_norm(x, gamma, beta, out, rows, c, half, vector)()
        expected = F.layer_norm(x.double(), (c,), gamma.double(), beta.double(), 1e-5).float().reshape(-1)
        judge(kind, text, out[: rows * c], expected, norm_bound(expected, half), out[rows * c :])

    attempt(kind, text, work)


def chunk_of(b, pixels, blocks=MULTIPROCESSORS):
    return ceil(pixels, max(1, blocks // b))


def check_group_norm(half, vector, silu, b, pixels, c, groups, chunk=None):
    chunk = chunk or chunk_of(b, pixels)
    kind = "group_norm"
    text = f"{['bf16', 'f16'][half]} vector={vector} silu={silu} b={b} pixels={pixels} c={c} groups={groups} chunk={chunk}"

    def work():
        x = (1.5 * torch.randn(b, pixels, c, device="cuda") + 20 * torch.randn(c, device="cuda") + 30).to(
            TYPE[half]
        )
        gamma, beta = torch.randn(c, device="cuda"), torch.randn(c, device="cuda")
        count = b * pixels * c
        out = guarded(count, half)
        group_norm(x, gamma, beta, out, b, pixels, c, groups, chunk, half, vector, silu)()
        expected = F.group_norm(
            x.double().transpose(1, 2), groups, gamma.double(), beta.double(), 1e-6
        ).transpose(1, 2)
        if silu:
            expected = F.silu(expected)
        expected = expected.float().reshape(-1)
        judge(kind, text, out[:count], expected, norm_bound(expected, half), out[count:])

    attempt(kind, text, work)


def check_geglu(half, vector, rows, c):
    kind, text = "geglu", f"{['bf16', 'f16'][half]} vector={vector} rows={rows} c={c}"

    def work():
        x = (2 * torch.randn(rows, 2 * c, device="cuda")).to(TYPE[half])
        out = guarded(rows * c, half)
        geglu(x, out, rows, c, half, vector)()
        expected = (x[:, :c].double() * F.gelu(x[:, c:].double())).float().reshape(-1)
        judge(kind, text, out[: rows * c], expected, norm_bound(expected, half), out[rows * c :])

    attempt(kind, text, work)


for half in (0, 1):
    for vector in (1, 0):
        for rows, c in [
            (1, 32),
            (5, 64),
            (77, 320),
            (130, 768),
            (1000, 1280),
            (33, 2048),
            (9, 2560),
            (7, 4096),
        ] + ([] if vector else [(3, 77), (10, 301), (2, 1)]):
            check_layer_norm(half, vector, rows, c)
        for silu in (0, 1):
            for shape in [
                (2, 4096, 320, 32),
                (2, 1024, 640, 32),
                (2, 64, 1280, 32),
                (1, 300, 2560, 32),
                (3, 77, 960, 32),
                (1, 1000, 128, 32),
                (1, 500, 32, 32),
                (2, 50, 96, 32, 7),
                (1, 40, 320, 10, 1),
                (2, 64, 320, 32, 17),
                (1, 9, 4096, 32, 4),
            ] + ([] if vector else [(2, 30, 60, 12, 11)]):
                check_group_norm(half, vector, silu, *shape)
        for rows, c in ((1, 8), (77, 1280), (1000, 40), (300, 2560)) + (() if vector else ((5, 3),)):
            check_geglu(half, vector, rows, c)

say("")
for kind, (good, bad, worst) in counts.items():
    say(f"{'OK ' if not bad else 'BAD'} {kind}: {good} good, {bad} bad, worst {worst:.2f} of the bound")
say(f"{time.time() - start:.1f} s so far")


def timed(launch, repeats=10, runs=20):
    """Seconds a launch: median of `runs` of `repeats` launches in a row, queued behind a pause so that the host's
    own time does not count (caches are warm)."""
    launch()
    torch.cuda.synchronize()
    times = []
    for _ in range(runs):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(1_000_000)
        begin.record()
        for _ in range(repeats):
            launch()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / repeats * 1e-3)
    return statistics.median(times)


def time_or_none(launch, **how):
    try:
        return timed(launch, **how)
    except Exception as error:
        say(f"BAD timing: {type(error).__name__}: {str(error)[:200]}")
        return None


def shown(seconds, work, unit):
    return "none" if seconds is None else f"{seconds * 1e6:8.1f} us {work / seconds * 1e-12:6.1f} {unit}"


def time_attention(b, heads, n, m, d, variants):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q, k, v = (torch.randn(b, l, heads * d, device="cuda").to(torch.bfloat16) for l in (n, m, m))
    out = torch.empty_like(q)
    work = 4 * b * heads * n * m * d
    how = dict(repeats=3 if work > 2e11 else 10, runs=20)
    say(f"attention bf16 b={b} heads={heads} n={n} m={m} d={d}")
    for variant in variants:
        try:
            launch = attention(q, k, v, None, out, b, heads, n, m, d, 0, *variant)
        except Exception as error:
            say(f"  BAD {variant}: {str(error)[:200]}")
            continue
        say(f"  ROWS/KEYS/WARP_ROWS {variant!s:15} {shown(time_or_none(launch, **how), work, 'TFLOP/s')}")
    parts = [t.view(b, -1, heads, d).transpose(1, 2) for t in (q, k, v)]
    for name, backend in (
        ("flash", [SDPBackend.FLASH_ATTENTION]),
        ("cudnn", [SDPBackend.CUDNN_ATTENTION]),
        ("default", None),
    ):

        def theirs():
            return F.scaled_dot_product_attention(*parts)

        try:
            if backend:
                with sdpa_kernel(backend):
                    seconds = timed(theirs, **how)
            else:
                seconds = timed(theirs, **how)
            say(f"  torch {name:29} {shown(seconds, work, 'TFLOP/s')}")
        except Exception as error:
            say(f"  torch {name}: {str(error).splitlines()[0][:100]}")


def time_bias():
    b, heads, n, d = 8, 12, 128, 64
    q, k, v = (torch.randn(b, n, heads * d, device="cuda").to(torch.bfloat16) for _ in range(3))
    out, bias = torch.empty_like(q), torch.zeros(b, 1, n, device="cuda")
    work = 4 * b * heads * n * n * d
    launch = attention(q, k, v, bias, out, b, heads, n, n, d, 0, 128, 64)
    say(
        f"attention bf16 with a mask b={b} heads={heads} n={n} d={d}: {shown(timed(launch), work, 'TFLOP/s')}"
    )
    parts = [t.view(b, -1, heads, d).transpose(1, 2) for t in (q, k, v)]
    mask = bias[:, None].to(torch.bfloat16)
    theirs = lambda: F.scaled_dot_product_attention(*parts, attn_mask=mask.expand(b, heads, n, n))
    say(f"  torch {'default':64} {shown(timed(theirs), work, 'TFLOP/s')}")


def time_layer_norm(rows, c):
    x = torch.randn(rows, c, device="cuda").to(torch.bfloat16)
    gamma, beta, out = torch.ones(c, device="cuda"), torch.zeros(c, device="cuda"), torch.empty_like(x)
    size = 2 * x.numel() * 2
    say(
        f"layer_norm rows={rows} c={c}: {shown(time_or_none(layer_norm(x, gamma, beta, out, rows, c, 0, 1)), size, 'TB/s')}"
    )
    g, b = gamma.bfloat16(), beta.bfloat16()
    say(f"  torch {shown(time_or_none(lambda: F.layer_norm(x, (c,), g, b, 1e-5)), size, 'TB/s')}")


def time_group_norm(b, pixels, c, side):
    x = torch.randn(b, pixels, c, device="cuda").to(torch.bfloat16)
    gamma, beta, out = torch.ones(c, device="cuda"), torch.zeros(c, device="cuda"), torch.empty_like(x)
    size = 3 * x.numel() * 2  # read twice, written once
    for times in (0.5, 1, 2, 4):
        chunk = chunk_of(b, pixels, int(MULTIPROCESSORS * times))
        launch = group_norm(x, gamma, beta, out, b, pixels, c, 32, chunk, 0, 1, 1)
        say(
            f"group_norm+silu b={b} pixels={pixels} c={c} chunk={chunk} blocks={b * ceil(pixels, chunk)}: "
            f"{shown(time_or_none(launch), size, 'TB/s')}"
        )
    g, be = gamma.bfloat16(), beta.bfloat16()
    nchw = x.transpose(1, 2).reshape(b, c, side, pixels // side).contiguous()
    last = nchw.contiguous(memory_format=torch.channels_last)
    for name, t in (("nchw", nchw), ("channels last", last)):
        say(
            f"  torch {name}: {shown(time_or_none(lambda: F.silu(F.group_norm(t, 32, g, be, 1e-6))), size, 'TB/s')}"
        )


def time_geglu(rows, c):
    x = torch.randn(rows, 2 * c, device="cuda").to(torch.bfloat16)
    out = torch.empty(rows, c, device="cuda", dtype=torch.bfloat16)
    size = 3 * rows * c * 2
    say(f"geglu rows={rows} c={c}: {shown(time_or_none(geglu(x, out, rows, c, 0, 1)), size, 'TB/s')}")

    def theirs():
        left, right = x.chunk(2, -1)
        return left * F.gelu(right)

    say(f"  torch {shown(time_or_none(theirs), size, 'TB/s')}")


if "--no-time" not in sys.argv:
    for case in TIMED:
        attempt("timing", str(case), lambda: time_attention(*case))
    attempt("timing", "bias", time_bias)
    for rows, c in ((8192, 320), (2048, 640), (154, 768), (16384, 768), (131072, 320)):
        attempt("timing", "layer_norm", lambda: time_layer_norm(rows, c))
    for shape in (
        (2, 4096, 320, 64),
        (2, 1024, 640, 32),
        (2, 64, 1280, 8),
        (32, 4096, 320, 64),
        (1, 262144, 128, 512),
    ):
        attempt("timing", "group_norm", lambda: time_group_norm(*shape))
    for rows, c in ((8192, 1280), (131072, 1280)):
        attempt("timing", "geglu", lambda: time_geglu(rows, c))
say(
    f"{'ALL OK' if all(not bad for _, bad, _ in counts.values()) else 'SOME BAD'}; {time.time() - start:.1f} s in all"
)
