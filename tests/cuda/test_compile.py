"""The CUDA sources compiled for every GPU that counts, by NVRTC, which needs no GPU.

Skipped where CuPy or NVRTC is missing, unless FASTNN_REQUIRE names nvrtc; the extra `cuda-check`
brings both.
"""

import os
import re
from importlib import import_module

import numpy as np
import pytest

from fastnn.backends import cuda_code
from fastnn.backends.cuda_code import compiled, kernel_source, machine_code, options_for
from fastnn.backends.cuda_gpu import Limits
from fastnn.backends.cuda_resident import Fit, Kind, definitions, fit
from fastnn.errors import DeviceError

try:
    import_module("cupy").cuda.nvrtc.getVersion()
except Exception as error:  # CuPy's own advice fills a page
    if "nvrtc" in os.environ.get("FASTNN_REQUIRE", "").split(","):
        raise
    pytest.skip(f"no NVRTC: {type(error).__name__}", allow_module_level=True)

# Shared memory that a block may have at the most, in KB, by compute capability.
GPUS = {(7, 5): 64, (8, 0): 163, (8, 6): 99, (8, 9): 99, (9, 0): 227, (10, 0): 227, (12, 0): 99}
# Sizes, samples a mini-batch, activations, cost; what benchmarks train, the default, and others.
BOOK = (784, 30, 10), 10, ("sigmoid", "sigmoid"), "quadratic"
VIDEO = (784, 16, 16, 10), 32, ("sigmoid", "sigmoid", "sigmoid"), "quadratic"
NETWORKS = [
    BOOK,
    VIDEO,
    ((784, 100, 10), 10, ("sigmoid", "sigmoid"), "quadratic"),
    ((784, 128, 10), 128, ("sigmoid", "sigmoid"), "quadratic"),
    ((64, 30, 10), 10, ("sigmoid", "sigmoid"), "cross-entropy"),
    ((784, 10), 10, ("softmax",), "log-likelihood"),
    ((784, 40, 10), 10, ("leaky-relu", "sigmoid"), "cross-entropy"),
    ((13, 17, 5, 3), 7, ("tanh", "relu", "identity"), "squared-error"),
]
KINDS = [("uint8", "float32"), ("float32", "float32"), ("uint8", "float64"), ("float64", "float64")]
# Updates beside plain descent
UPDATES = [Kind(l1=True), Kind(momentum=True), Kind(momentum=True, nesterov=True, l1=True)]
# Bytes that a thread may keep in memory for lack of registers: some that are the same all the time
# are, rather than computed again; none of what is multiplied.
SPILLED = {"float32": 32, "float64": 64}


def resources(log):
    """Return each kernel's registers and spilled bytes, by what the assembler said."""
    found = re.findall(
        r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?"
        r"Used (\d+) registers",
        log,
        re.DOTALL,
    )
    return {name: (int(used), int(stored)) for name, stored, _, used in found}


def compiled_with_report(source, defined, capability):
    options = (*options_for(defined, capability), "--ptxas-options=-v")
    code, log = compiled(source, options)
    assert "warning" not in log.lower(), log
    return code, resources(log)


@pytest.mark.parametrize("capability", GPUS)
@pytest.mark.parametrize("real", ["float", "double"])
def test_the_plain_kernels(capability, real):
    code, found = compiled_with_report("cuda_kernels.cu", {"REAL": real, "LEAK": 0.01}, capability)
    assert code.startswith(b"\x7fELF")
    names = re.findall(r"__global__ void (\w+)\(", kernel_source("cuda_kernels.cu"))
    assert sorted(found) == sorted(names)
    for registers, spilled in found.values():
        assert spilled == 0
        assert registers * 512 <= 65536  # the largest block that is launched


@pytest.mark.parametrize("capability", GPUS)
@pytest.mark.parametrize(
    ("row", "real", "kind"),
    [*((*types, Kind()) for types in KINDS), *((*KINDS[0], kind) for kind in UPDATES)],
)
def test_the_resident_kernel_keeps_its_weights_in_registers(capability, row, real, kind):
    limits = Limits(capability, GPUS[capability] << 10)
    row, real = np.dtype(row), np.dtype(real)
    fitting = []
    for sizes, batch, activations, cost in NETWORKS:
        how = fit(sizes, batch, row, real, limits, kind)
        if not isinstance(how, Fit):
            continue
        fitting.append(sizes)
        defined = definitions(how, sizes, activations, cost, batch, row, real)
        code, found = compiled_with_report("cuda_epoch.cu", defined, capability)
        ((registers, spilled),) = found.values()
        what = f"{sizes}, {how}: {registers} registers, {spilled} bytes spilled"
        assert code.startswith(b"\x7fELF")
        # Registers are given out to groups of four warps, as many as there are schedulers.
        assert registers * -(-how.threads // 128) * 128 <= limits.registers, what
        assert how.shared_bytes <= limits.shared_memory
        assert spilled <= SPILLED[real.name], what
    if real == np.float32:
        room = limits.shared_memory > 120 << 10
        assert (BOOK[0] in fitting) == (room or not kind.momentum)
        assert (VIDEO[0] in fitting) == room


# What is kept on disk
# --------------------------------------------------------------------------------------------------

SMALL = {"REAL": "float", "LEAK": 0.01}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTNN_CACHE_DIR", str(tmp_path))
    cuda_code._say_once.cache_clear()
    return tmp_path / "cuda"


@pytest.fixture
def compilations(monkeypatch):
    made = []

    def counting(source, options):
        made.append(options)
        return compiled(source, options)

    monkeypatch.setattr(cuda_code, "compiled", counting)
    return made


def code(definitions=SMALL, capability=(9, 0)):
    return machine_code("cuda_kernels.cu", definitions, capability)


def test_it_compiles_once_for_each_gpu_and_definition(folder, compilations):
    assert code() == code()
    assert len(compilations) == 1
    code(capability=(8, 0))
    code({**SMALL, "REAL": "double"})
    assert len(compilations) == 3
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 100_000])
def test_a_damaged_file_is_made_again(folder, compilations, damage):
    before = code()
    (path,) = folder.iterdir()
    path.write_bytes(damage)
    assert code() == before
    assert code() == before
    assert len(compilations) == 2


def test_where_nothing_can_be_kept_it_says_so_once(folder, compilations, caplog):
    folder.parent.joinpath("cuda").write_text("a file where a folder should be")
    assert code() == code()
    assert len(compilations) == 2
    (record,) = caplog.records
    assert "FASTNN_CACHE_DIR" in record.message


def test_no_part_of_a_file_is_left_behind(folder, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    code()
    assert list(folder.iterdir()) == []


def test_what_does_not_compile_says_where(folder):
    with pytest.raises(DeviceError, match=r"(?s)cuda_kernels.cu does not compile.*error"):
        code({"REAL": "no_such_type", "LEAK": 0.01})
