"""Compiles the CUDA text of models/src/kernels/cuda as cubecl does; needs NVRTC, no card.

NVRTC names the library; else the toolkit's is taken, or that of `pip install nvidia-cuda-nvrtc`."""

import ctypes
import glob
import os
import pathlib
import site

KERNELS = pathlib.Path(__file__).parents[2] / "models/src/kernels/cuda"
ARCHITECTURE = os.environ.get("ARCHITECTURE", "sm_90a")


def libraries():
    if "NVRTC" in os.environ:
        yield os.environ["NVRTC"]
    yield from glob.glob("/usr/local/cuda/lib64/libnvrtc.so*")
    for folder in site.getsitepackages():
        yield from glob.glob(f"{folder}/nvidia/**/libnvrtc.so*", recursive=True)


def load():
    for path in libraries():
        for builtins in glob.glob(os.path.join(os.path.dirname(path), "libnvrtc-builtins.so*")):
            try:
                ctypes.CDLL(builtins)
            except OSError:
                pass
        return ctypes.CDLL(path)
    raise SystemExit("NVRTC is not found: set NVRTC, or pip install nvidia-cuda-nvrtc")


def compile(source, architecture=ARCHITECTURE):
    """The cubin of a text; RuntimeError with the compiler's log."""
    nvrtc = load()
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), None, 0, None, None) == 0
    options = (ctypes.c_char_p * 1)(f"--gpu-architecture={architecture}".encode())
    failed = nvrtc.nvrtcCompileProgram(program, 1, options)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    if failed:
        raise RuntimeError(log.value.decode())
    if log.value.strip():
        print(log.value.decode())
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetCUBIN(program, cubin)
    return cubin.raw


def text(defines, *files, between=""):
    """Defines, prelude.cu, what comes between, and the files."""
    lines = "".join(f"#define {name} {value}\n" for name, value in sorted(defines.items()))
    read = lambda name: (KERNELS / name).read_text()
    return lines + read("prelude.cu") + between + "".join(map(read, files))
