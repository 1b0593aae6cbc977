"""Checks gemm.cu on a card against PyTorch, and times both: products and 3x3 convolutions.

    python benches/cuda/products.py [--compile]   # with it no card is needed, and nothing runs

A time is named by its tile: t (wgmma, copy engine), w (wgmma) or m (mma.sync), columns, stages, A or T
where the left or right factor is transposed, G where half the columns gate the others, and /parts of the sums."""

import ctypes
import itertools
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import nvrtc

ROWS, CONVOLUTION, GATE = 128, 2, 6
DEFAULTS = {
    "HALF": 0, "WIDE_BIAS": 0, "BM": ROWS, "BN": 128, "STAGES": 4, "A_KIND": 0, "B_KIND": 0, "BIAS": 0, "ACT": 0,
    "RESIDUAL": 0, "SPLIT": 0, "VECTOR": 1, "WGMMA": 1, "TMA": 0,
}  # fmt: skip


def ceil(a, b):
    return -(-a // b)


def wgmma(columns, half, a_turned, b_turned):
    """As models/src/kernels/cuda/wgmma.rs writes it."""
    count = columns // 2
    registers = ", ".join(f"%{i}" for i in range(count))
    outputs = ", ".join(f'"+f"(d[{i}])' for i in range(count))
    kind = "f16.f16" if half else "bf16.bf16"
    return (
        f"DEVICE void wgmma(float (&d)[{count}], u64 a, u64 b) {{\n"
        f'  asm volatile("{{.reg .pred p; setp.ne.b32 p, 1, 0; '
        f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{kind} {{{registers}}}, %{count}, "
        f'%{count + 1}, p, 1, 1, {a_turned}, {b_turned};}}" : {outputs} : "l"(a), "l"(b));\n}}\n'
    )


def source(variant):
    form = variant["BN"], variant["HALF"], int(variant["A_KIND"] == 1), int(variant["B_KIND"] == 1)
    between = (nvrtc.KERNELS / "hopper.cu").read_text() + wgmma(*form) if variant["WGMMA"] else ""
    return nvrtc.text(variant, "tiles.cu", "activation.cu", "gemm.cu", between=between)


def variant(**defines):
    d = {**DEFAULTS, **defines}
    # As Tile::blocks says for Hopper's 227 KiB a block.
    d["BLOCKS"] = 2 if d["STAGES"] * (ROWS + d["BN"]) <= 768 else 1
    return tuple(sorted(d.items()))


def build(key):
    try:
        return key, nvrtc.compile(source(dict(key)))
    except RuntimeError as error:
        return key, str(error)


def linear(m, n, k, splits=1, batch=1):
    return {"m": m, "n": n, "k": k, "splits": splits, "batch": batch}


def convolution(b, h, w, cin, cout, stride=1, pad=1, per=0, splits=1):
    return {"b": b, "h": h, "w": w, "cin": cin, "cout": cout, "stride": stride, "pad": pad, "per": per,
            "splits": splits}  # fmt: skip


def cases():
    """What is checked: sizes that are multiples of nothing, every layout, tile and activation."""
    sizes = [(128, 128, 64, 1), (1, 64, 64, 1), (77, 320, 320, 1), (1000, 1280, 200, 1), (257, 72, 136, 1),
             (100, 6, 10, 0), (33, 130, 37, 0), (300, 4, 2880, 0)]  # fmt: skip
    for (kind, tma), bn in itertools.product([((1, 1), 1), ((1, 0), 0), ((0, 0), 0)], (64, 128, 192, 256)):
        way = {"WGMMA": kind[0], "TMA": tma, "BN": bn}
        for (m, n, k, vector), a, b in itertools.product(sizes, (0, 1), (0, 1)):
            if vector < max(tma, a and m % 8 > 0):
                continue
            act = (m + bn // 64 + a + b) % 7
            if act == GATE and (n % 16 or tma and b and bn % 128):
                act = 1
            yield linear(m, n, k), variant(
                A_KIND=a, B_KIND=b, VECTOR=vector, BIAS=int(bn != 64), ACT=act, HALF=int(bn == 256),
                RESIDUAL=(a + b) % 2, STAGES=3 if tma and bn == 128 else 4, **way)  # fmt: skip
        for act in (0, GATE) if bn > 64 else (0,):
            yield linear(200, 640, 1280, splits=4), variant(BIAS=1, ACT=act, SPLIT=1, RESIDUAL=1, **way)
            if bn % 128 == 0 or act == 0:
                yield linear(200, 640, 320, batch=3), variant(B_KIND=1, BIAS=1, ACT=act, **way)
        pictures = [
            (convolution(2, 64, 64, 64, 128, per=1), 1),
            (convolution(2, 16, 16, 128, 72), 1),
            (convolution(3, 8, 8, 1280, 1280, per=1, splits=8), 1),
            (convolution(1, 5, 256, 128, 128), 1),
            (convolution(5, 4, 4, 64, 8, per=1), 1),
        ]
        if not tma:
            pictures += [
                (convolution(1, 8, 8, 4, 320), 0),
                (convolution(2, 9, 7, 320, 4, per=1), 1),
                (convolution(2, 16, 16, 40, 24, stride=2, pad=0, per=1), 1),
                (convolution(3, 12, 10, 32, 72, stride=2), 1),
                (convolution(2, 5, 5, 3, 5), 0),
            ]
        for sizes_of, vector in pictures:
            split = int(sizes_of["splits"] > 1)
            yield sizes_of, variant(A_KIND=CONVOLUTION, BIAS=1, VECTOR=vector, SPLIT=split, **way)


def timings():
    """The products of BERT and of Stable Diffusion's U-Net for 2 and 32 latents, and the autoencoder's."""
    for tma, bn, stages in [(1, 128, 4), (1, 128, 3), (1, 256, 4), (1, 64, 4), (1, 192, 4), (0, 128, 4)]:
        way = {"TMA": tma, "BN": bn, "STAGES": stages, "BIAS": 1}
        for a, b in [(0, 0), (0, 1), (1, 1)] if tma else [(0, 0)]:
            yield linear(4096, 4096, 4096), variant(A_KIND=a, B_KIND=b, **way)
        for m, n, k in [(8192, 320, 320), (8192, 2560, 320), (2048, 640, 640), (512, 1280, 1280),
                        (1024, 768, 768), (1024, 3072, 768), (1024, 768, 3072), (131072, 320, 320),
                        (131072, 2560, 320), (32768, 640, 2560)]:  # fmt: skip
            yield linear(m, n, k), variant(**way)
        for b, h, c in [(2, 64, 320), (2, 32, 640), (2, 16, 1280), (2, 8, 1280), (32, 64, 320), (32, 32, 640),
                        (32, 16, 1280), (32, 8, 1280), (1, 512, 128), (1, 256, 256)]:  # fmt: skip
            for splits in (1, 2, 4, 8) if tma and b == 2 and h <= 16 else (1,):
                split = int(splits > 1)
                key = variant(A_KIND=CONVOLUTION, SPLIT=split, **way)
                yield convolution(b, h, h, c, c, splits=splits), key


class Card:
    """Launches kernels on PyTorch's tensors."""

    def __init__(self, built):
        import torch

        self.torch, self.built, self.functions = torch, built, {}
        self.driver = ctypes.CDLL("libcuda.so.1")
        torch.zeros(1, device="cuda")  # makes the context

    def must(self, code, what):
        if code:
            raise RuntimeError(f"{what}: {code}")

    def function(self, key, name):
        if (key, name) not in self.functions:
            if isinstance(self.built[key], str):
                raise RuntimeError("did not compile")
            module, function = ctypes.c_void_p(), ctypes.c_void_p()
            self.must(self.driver.cuModuleLoadData(ctypes.byref(module), self.built[key]), "module")
            found = self.driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode())
            self.must(found, name)
            self.functions[key, name] = function
        return self.functions[key, name]

    def boxes(self, tensor, half, sizes, strides, box):
        """A tensor map (boxes.rs), of sizes from the last dimension to the first."""
        rank, room = len(sizes), (ctypes.c_ulonglong * 24)()
        offset = (-ctypes.addressof(room) // 8) % 8
        aligned = ctypes.c_void_p(ctypes.addressof(room) + offset * 8)
        longs, ints = ctypes.c_ulonglong, ctypes.c_uint
        code = self.driver.cuTensorMapEncodeTiled(
            aligned, 6 if half else 9, rank, ctypes.c_void_p(tensor.data_ptr()), (longs * rank)(*sizes),
            (longs * (rank - 1))(*[2 * stride for stride in strides]), (ints * rank)(*box),
            (ints * rank)(*[1] * rank), 0, 3, 2, 0)  # fmt: skip
        self.must(code, "tensor map")
        return room, aligned

    def launch(self, function, grid, threads, shared, tensors, info, maps=()):
        self.must(self.driver.cuFuncSetAttribute(function, 8, shared), "shared memory")
        pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        info = (ctypes.c_ulonglong * len(info))(*info)
        arguments = [aligned for _, aligned in maps]
        arguments += [ctypes.cast(ctypes.byref(pointer), ctypes.c_void_p) for pointer in pointers]
        arguments.append(ctypes.cast(info, ctypes.c_void_p))
        arguments = (ctypes.c_void_p * len(arguments))(*arguments)
        stream = ctypes.c_void_p(self.torch.cuda.current_stream().cuda_stream)
        code = self.driver.cuLaunchKernel(function, *grid, threads, 1, 1, shared, stream, arguments, None)
        self.must(code, "launch")

    def prepare(self, sizes, key):
        """Launches the kernel; makes the reference in 32 bits; PyTorch's own; the output; operations."""
        torch, d = self.torch, dict(key)
        F = torch.nn.functional
        dtype = torch.float16 if d["HALF"] else torch.bfloat16
        generator = torch.Generator(device="cuda").manual_seed(1)
        draw = lambda *shape: torch.randn(*shape, device="cuda", generator=generator)
        batch, per, pictures, steps = sizes.get("batch", 1), 0, [0] * 8, [0, 0]
        if "cin" in sizes:
            b, h, w, cin, cout = (sizes[name] for name in ("b", "h", "w", "cin", "cout"))
            stride, pad = sizes["stride"], sizes["pad"]
            out_h, out_w = (h + pad - 2) // stride + 1, (w + pad - 2) // stride + 1
            m, n, k = b * out_h * out_w, cout, 9 * cin
            left = draw(b, h, w, cin).to(dtype)
            weight = (draw(cout, cin, 3, 3) * k**-0.5).to(dtype)
            bias = draw(b if sizes["per"] else 1, cout).to(dtype)
            right, lda, ldb = weight.permute(0, 2, 3, 1).contiguous(), cin, k
            per = out_h * out_w if sizes["per"] else 0
            pictures = [h, w, cin, out_h * out_w, out_w, stride, pad, 3]
            first = left.permute(0, 3, 1, 2)
            padded = F.pad(first, (0, 1, 0, 1)) if pad == 0 else first

            def product():
                y = F.conv2d(padded.float(), weight.float(), None, stride, pad)
                return (y + bias.float()[:, :, None, None]).permute(0, 2, 3, 1).reshape(1, m, n)

            last = weight.contiguous(memory_format=torch.channels_last)
            peer = lambda: F.conv2d(first, last, bias[0], stride, pad)
        else:
            m, n, k = (sizes[name] for name in ("m", "n", "k"))
            a, b = draw(batch, m, k).to(dtype), (draw(batch, k, n) * k**-0.5).to(dtype)
            bias = draw(n).to(dtype)
            left = a.transpose(1, 2).contiguous() if d["A_KIND"] == 1 else a
            right = b if d["B_KIND"] == 1 else b.transpose(1, 2).contiguous()
            lda, ldb, steps = (m if d["A_KIND"] == 1 else k), (n if d["B_KIND"] == 1 else k), [m * k, n * k]
            product = lambda: a.float() @ b.float() + (bias.float() if d["BIAS"] else 0)
            turned = b[0].t().contiguous()
            peer = lambda: F.linear(a[0], turned, bias)
        gated = d["ACT"] == GATE
        n_out, columns = (n // 2 if gated else n), (d["BN"] // 2 if gated else d["BN"])
        k_per_split = ceil(ceil(k, sizes["splits"]), 64) * 64
        splits = ceil(k, k_per_split)
        out = torch.full((batch, m, n_out), 7.0, device="cuda", dtype=dtype)
        residual = draw(batch, m, n_out).to(dtype)
        parts = torch.full((batch * splits * m * n,), float("nan"), device="cuda") if d["SPLIT"] else out
        info = [m, n, k, lda, ldb, *steps, m * n_out, per, k_per_split, *pictures, splits]
        maps = self.maps(d, left, right, sizes, (m, n, k, batch)) if d["TMA"] else ()
        threads = 256 + d["TMA"] * (32 if d["BLOCKS"] == 2 else 128)
        shared = d["STAGES"] * ((ROWS + d["BN"]) * 128 + 16) + 1024
        grid = (ceil(m, ROWS) * ceil(n_out, columns), splits if d["SPLIT"] else 1, batch)
        tensors = [left, right, bias, residual, out, parts] + ([left, right] if d["TMA"] else [])
        gemm, finish = self.function(key, "gemm"), self.function(key, "finish")

        def go():
            self.launch(gemm, grid, threads, shared, tensors, info, maps)
            if d["SPLIT"]:
                blocks = (ceil(m * n_out, 256), 1, batch)
                self.launch(finish, blocks, 256, 0, [parts, bias, residual, out], info)

        def reference():
            y = product()
            acts = [lambda y: y, F.gelu, lambda y: F.gelu(y, approximate="tanh"),
                    lambda y: y * torch.sigmoid(1.702 * y), F.relu, F.silu,
                    lambda y: y[..., : n // 2] * F.gelu(y[..., n // 2 :])]  # fmt: skip
            y = acts[d["ACT"]](y)
            return y + residual.float() if d["RESIDUAL"] else y

        return go, reference, peer, out, 2 * m * n * k * batch

    def maps(self, d, left, right, sizes, numbers):
        m, n, k, batch = numbers
        columns = d["BN"] // (2 if d["ACT"] == GATE else 1)
        half = d["HALF"]
        if "cin" in sizes:
            b, h, w, cin = (sizes[name] for name in ("b", "h", "w", "cin"))
            across = min(w, ROWS)
            lines = min(h, ROWS // across)
            box = (64, across, lines, ROWS // (across * lines))
            of_left = self.boxes(left, half, (cin, w, h, b), (cin, cin * w, cin * w * h), box)
        elif d["A_KIND"] == 1:
            of_left = self.boxes(left, half, (m, k, batch), (m, m * k), (64, 64, 1))
        else:
            of_left = self.boxes(left, half, (k, m, batch), (k, m * k), (64, ROWS, 1))
        if d["B_KIND"] == 1:
            return of_left, self.boxes(right, half, (n, k, batch), (n, n * k), (64, 64, 1))
        return of_left, self.boxes(right, half, (k, n, batch), (k, n * k), (64, columns, 1))

    def seconds(self, work, runs=20, each=5):
        """The median, of a graph of five launches."""
        torch = self.torch
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                work()
            stream.synchronize()
            with torch.cuda.graph(graph, stream=stream):
                for _ in range(each):
                    work()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
        graph.replay()
        events[0].record()
        for event in events[1:]:
            graph.replay()
            event.record()
        torch.cuda.synchronize()
        return sorted(a.elapsed_time(b) for a, b in zip(events, events[1:]))[runs // 2] / each / 1e3


def check(card):
    bad = count = 0
    for sizes, key in cases():
        count += 1
        try:
            go, reference, _, out, _ = card.prepare(sizes, key)
            go()
            card.torch.cuda.synchronize()
            d = dict(key)
            # Outputs are of about unit size; gates and residuals make some of them larger.
            bound = (0.006 if d["HALF"] else 0.04) * (2 if d["ACT"] == GATE or d["RESIDUAL"] else 1)
            error = (out.float() - reference()).abs().max().item()
            if not error <= bound:
                bad += 1
                print("BAD", sizes, d, f"{error:.2g}")
        except RuntimeError as error:
            bad += 1
            print("BAD", sizes, dict(key), str(error)[:200])
    print(f"{count} cases, {bad} bad")
    return bad


def label(d, sizes):
    way = "t" if d["TMA"] else "w" if d["WGMMA"] else "m"
    turned = ("A" if d["A_KIND"] == 1 else "") + ("T" if d["B_KIND"] else "")
    return f"{way}{d['BN']}s{d['STAGES']}{turned}" + (f"/{sizes['splits']}" if d["SPLIT"] else "")


def compare(card):
    peers, rows = {}, {}
    for sizes, key in timings():
        go, _, peer, _, operations = card.prepare(sizes, key)
        name = " x ".join(str(sizes[size]) for size in ("b", "h", "w", "cin", "m", "n", "k") if size in sizes)
        if name not in peers:
            peers[name] = operations / card.seconds(peer)
        rows.setdefault(name, []).append((label(dict(key), sizes), operations / card.seconds(go)))
    print("tera-operations a second; PyTorch's first")
    for name, rates in rows.items():
        print(f"{name}: {peers[name] / 1e12:.0f} |", *(f"{way}:{rate / 1e12:.0f}" for way, rate in rates))


def main():
    keys = list(dict.fromkeys(key for _, key in itertools.chain(cases(), timings())))
    begun = time.time()
    with ProcessPoolExecutor() as pool:
        built = dict(pool.map(build, keys))
    failed = [(dict(key), log) for key, log in built.items() if isinstance(log, str)]
    print(f"{len(keys)} variants, {len(failed)} do not compile; {time.time() - begun:.0f} s")
    for key, log in failed:
        print(key, log[:600])
    if "--compile" in sys.argv:
        return bool(failed)
    card = Card(built)
    print(card.torch.cuda.get_device_name())
    card.torch.backends.cuda.matmul.allow_tf32 = card.torch.backends.cudnn.allow_tf32 = False
    card.torch.backends.cudnn.benchmark = True
    bad = check(card)
    compare(card)
    return bool(failed or bad)


if __name__ == "__main__":
    sys.exit(main())
