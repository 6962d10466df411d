"""What stands in CUDA's way is said, on machines made up here: each cause, and what mends it."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest

from fastnn.backends import cuda_driver, cuda_probe
from fastnn.backends.cuda_probe import checks, unavailable

NAMES = ["CuPy", "NVIDIA driver", "GPUs", "libraries", "import", "GPU", "kernel cache"]
GIB = 2**30

H200 = ("NVIDIA H200", (9, 0), 140 * GIB)
V100 = ("Tesla V100", (7, 0), 16 * GIB)
K80 = ("Tesla K80", (3, 7), 12 * GIB)

CUDA_12 = 'pip uninstall -y cupy-cuda13x && pip install -e ".[cuda12]"'
CUDA_13 = 'pip install -e ".[cuda13]"'


class Driver:
    """NVIDIA's driver as ctypes gives it: functions that write where their arguments point to."""

    def __init__(self):
        self.version, self.gpus, self.mode, self.free = 13000, [H200], 0, 100 * GIB
        self.errors = {}  # of functions, by name
        self.called = []

    def __getattr__(self, function):
        do = getattr(type(self), f"_{function}")

        def call(*arguments):
            self.called.append(function)
            if code := self.errors.get(function, 0):
                return code
            do(self, *(getattr(argument, "_obj", argument) for argument in arguments))
            return 0

        return call

    def _cuDriverGetVersion(self, version):
        version.value = self.version

    def _cuInit(self, flags):
        assert flags == 0

    def _cuGetErrorName(self, code, name):
        names = {2: b"CUDA_ERROR_OUT_OF_MEMORY", 999: b"CUDA_ERROR_UNKNOWN"}
        name.value = names.get(code)

    def _cuDeviceGetCount(self, count):
        count.value = len(self.gpus)

    def _cuDeviceGet(self, device, number):
        device.value = 100 + number  # a handle is not a number

    def _cuDeviceGetName(self, name, length, device):
        assert length == len(name)
        name.value = self.gpus[device - 100][0].encode()

    def _cuDeviceTotalMem_v2(self, size, device):
        size.value = self.gpus[device - 100][2]

    def _cuDeviceGetAttribute(self, value, attribute, device):
        _, (major, minor), _ = self.gpus[device - 100]
        value.value = {20: self.mode, 75: major, 76: minor}[attribute]

    def _cuDevicePrimaryCtxRetain(self, context, device):
        context.value = device

    def _cuDevicePrimaryCtxRelease_v2(self, device):
        assert device >= 100

    def _cuCtxPushCurrent_v2(self, context):
        assert context.value >= 100

    def _cuCtxPopCurrent_v2(self, context):
        pass

    def _cuMemGetInfo_v2(self, free, total):
        free.value, total.value = self.free, self.gpus[0][2]

    def _cuMemAlloc_v2(self, pointer, size):
        assert size.value
        pointer.value = 4096

    def _cuMemFree_v2(self, pointer):
        assert pointer.value == 4096


class Machine:
    """A machine where all is well, until a test takes something away."""

    def __init__(self):
        self.driver = Driver()
        self.installed = {"cupy-cuda13x": "14.2.0"}
        self.module = "/site-packages/cupy/__init__.py"  # None where there is no such file
        self.importing = None  # what importing CuPy raises
        self.libraries = {"nvrtc", "cublas"}
        self.loaded = []

    def version(self, name):
        if name not in self.installed:
            raise PackageNotFoundError(name)
        return self.installed[name]

    def find_spec(self, name):
        return SimpleNamespace(origin=self.module)

    def find_driver(self):
        if isinstance(self.driver, Exception):
            raise self.driver
        return self.driver

    def load(self, name, major):
        self.loaded.append(f"{name} {major}")
        if name not in self.libraries:
            raise OSError(f"lib{name}.so.{major}: cannot open shared object file")

    def import_module(self, name):
        if self.importing:
            raise self.importing
        return SimpleNamespace(__version__="14.2.0")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    made = Machine()
    there = SimpleNamespace(version=made.version, PackageNotFoundError=PackageNotFoundError)
    monkeypatch.setattr(cuda_probe, "metadata", there)
    monkeypatch.setattr(cuda_probe, "find_spec", made.find_spec)
    monkeypatch.setattr(cuda_probe, "import_module", made.import_module)
    monkeypatch.setattr(cuda_driver, "_driver", made.find_driver)
    monkeypatch.setattr(cuda_probe, "_load", made.load)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("FASTNN_CACHE_DIR", str(tmp_path))
    return made


def failed(index=None):
    """The first check that is not ok, and the names of all that were made."""
    made = list(checks(index))
    return next(check for check in made if not check.ok), [check.name for check in made]


def test_where_all_is_well_all_is_looked_at_in_order(machine, tmp_path):
    made = list(checks(None))
    assert [check.name for check in made] == NAMES
    assert all(check.ok and check.remedy is None for check in made)
    assert [check.detail for check in made] == [
        "cupy-cuda13x 14.2.0",
        "knows CUDA 13.0 and what is older",
        "cuda:0 NVIDIA H200, compute capability 9.0, 140.0 GiB",
        "NVRTC and cuBLAS",
        "CuPy 14.2.0",
        "cuda:0 can be had, 100.0 GiB of its 140.0 GiB are free",
        f"compiled code is kept in {tmp_path / 'cuda'}",
    ]
    assert machine.loaded == ["nvrtc 13", "cublas 13"]
    assert unavailable(None) is unavailable(0) is None


def test_what_is_taken_of_the_gpu_is_given_back(machine):
    list(checks(None))
    taken = [
        function for function in machine.driver.called if "Ctx" in function or "_v2" in function
    ]
    assert taken[-6:] == [
        "cuCtxPushCurrent_v2",
        "cuMemGetInfo_v2",
        "cuMemAlloc_v2",
        "cuMemFree_v2",
        "cuCtxPopCurrent_v2",
        "cuDevicePrimaryCtxRelease_v2",
    ]


def test_to_ask_whether_it_is_unavailable_takes_nothing_and_does_not_import(machine):
    machine.importing = AssertionError("CuPy was imported")
    assert unavailable(None) is None
    assert not [function for function in machine.driver.called if "Ctx" in function]


# What is changed, the first check that then fails, what it says, the remedy, and what else is
# looked at behind it
# ---------------------------------------------------------------------------------------


def no_cupy(machine):
    machine.installed, machine.module = {}, None


def no_cupy_and_an_old_driver(machine):
    no_cupy(machine)
    machine.driver.version = 12040


def no_cupy_and_no_driver(machine):
    no_cupy(machine)
    machine.driver = OSError("libcuda.so.1: cannot open shared object file")


def two_cupys(machine):
    machine.installed = {"cupy-cuda12x": "14.2.0", "cupy-cuda13x": "14.2.0"}


def cupy_for_amd(machine):
    machine.installed = {"cupy-rocm-7-0": "14.2.0"}


def cupy_for_cuda_11(machine):
    machine.installed = {"cupy-cuda11x": "13.6.0"}


def cupy_without_its_files(machine):
    machine.module = None


def no_driver(machine):
    machine.driver = OSError("libcuda.so.1: cannot open shared object file")


def driver_of_version_zero(machine):
    machine.driver.version = 0


def driver_of_cuda_12(machine):
    machine.driver.version = 12080


def driver_of_cuda_11(machine):
    machine.driver.version = 11040


def driver_in_disorder(machine):
    machine.driver.errors["cuInit"] = 999


def fabric_manager(machine):
    machine.driver.errors["cuInit"] = 802


def updated_driver(machine):
    machine.driver.errors["cuInit"] = 803


def stub(machine):
    machine.driver.errors["cuDriverGetVersion"] = 34


def forked(machine):
    machine.driver.errors["cuInit"] = 3


def no_gpu(machine):
    machine.driver.errors["cuInit"] = 100


def no_gpu_counted(machine):
    machine.driver.gpus = []


def old_gpu(machine):
    machine.driver.gpus = [V100]


def very_old_gpu(machine):
    machine.driver.gpus = [K80]


def no_nvrtc(machine):
    machine.libraries.remove("nvrtc")


def no_cublas(machine):
    machine.libraries.remove("cublas")


def import_that_fails(machine):
    machine.importing = ImportError("a page\n\nof advice")
    machine.importing.__cause__ = ImportError("libstdc++.so.6: version not found")


def exclusive(machine):
    machine.driver.errors["cuDevicePrimaryCtxRetain"], machine.driver.mode = 46, 3


def exclusive_as_older_drivers_say_it(machine):
    machine.driver.errors["cuDevicePrimaryCtxRetain"], machine.driver.mode = 101, 3


def prohibited(machine):
    machine.driver.errors["cuDevicePrimaryCtxRetain"], machine.driver.mode = 46, 2


def busy(machine):
    machine.driver.errors["cuDevicePrimaryCtxRetain"] = 46


def no_memory_for_a_context(machine):
    machine.driver.errors["cuDevicePrimaryCtxRetain"] = 2


def no_memory(machine):
    machine.driver.errors["cuMemAlloc_v2"] = 2


def ecc(machine):
    machine.driver.errors["cuDevicePrimaryCtxRetain"] = 214


AFTER_CUPY = ["CuPy", "NVIDIA driver", "GPUs"]
WITHOUT_DRIVER = ["CuPy", "NVIDIA driver", "libraries"]
WITHOUT_GPU = ["CuPy", "NVIDIA driver", "GPUs", "libraries"]
BOTH = "pip uninstall -y cupy-cuda13x cupy-cuda12x && " + CUDA_13
DRIVER = "install NVIDIA's driver"
ALL = NAMES[:6]

CAUSES = [
    (no_cupy, "CuPy is not installed", CUDA_13, AFTER_CUPY),
    (
        no_cupy_and_an_old_driver,
        "CuPy is not installed",
        'pip install -e ".[cuda12]"',
        AFTER_CUPY,
    ),
    (no_cupy_and_no_driver, "CuPy is not installed", CUDA_13, AFTER_CUPY[:2]),
    (two_cupys, "cupy-cuda13x and cupy-cuda12x are installed at once", BOTH, AFTER_CUPY),
    (
        cupy_for_amd,
        "cupy-rocm-7-0 is not for CUDA",
        "pip uninstall -y cupy-rocm-7-0 && " + CUDA_13,
        AFTER_CUPY,
    ),
    (
        cupy_for_cuda_11,
        "cupy-cuda11x is not for CUDA 12 or 13",
        "pip uninstall -y cupy-cuda11x && " + CUDA_13,
        AFTER_CUPY,
    ),
    (
        cupy_without_its_files,
        "files of cupy-cuda13x are missing",
        "pip uninstall -y cupy-cuda13x && " + CUDA_13,
        AFTER_CUPY,
    ),
    (no_driver, "no NVIDIA driver was found", DRIVER, WITHOUT_DRIVER),
    (driver_of_version_zero, "no NVIDIA driver was found", DRIVER, WITHOUT_DRIVER),
    (
        driver_of_cuda_12,
        "the driver knows CUDA 12.8 at most, and CuPy is for CUDA 13",
        f"{CUDA_12}, or install NVIDIA's driver 580 or newer",
        WITHOUT_DRIVER,
    ),
    (
        driver_of_cuda_11,
        "knows CUDA 11.4 at most",
        "install NVIDIA's driver 580 or newer",
        WITHOUT_DRIVER,
    ),
    (driver_in_disorder, "CUDA_ERROR_UNKNOWN: ", "restart the machine", WITHOUT_DRIVER),
    (fabric_manager, "switch is not ready", "start nvidia-fabricmanager", WITHOUT_DRIVER),
    (updated_driver, "updated while it ran", "restart the machine", WITHOUT_DRIVER),
    (stub, "a stub", "LD_LIBRARY_PATH", WITHOUT_DRIVER),
    (forked, "forked", "spawn", WITHOUT_DRIVER),
    (no_gpu, "the driver sees no GPU", "nvidia-smi -L", WITHOUT_GPU),
    (no_gpu_counted, "the driver sees no GPU", "nvidia-smi -L", WITHOUT_GPU),
    (
        old_gpu,
        "cuda:0 has compute capability 7.0, and CuPy for CUDA 13 needs 7.5",
        CUDA_12,
        WITHOUT_GPU,
    ),
    (very_old_gpu, "3.7, and CuPy for CUDA 13 needs 7.5", "--device cpu", WITHOUT_GPU),
    (no_nvrtc, "NVRTC cannot be loaded: OSError: libnvrtc.so.13", CUDA_13, [*WITHOUT_GPU, "GPU"]),
    (no_cublas, "cuBLAS cannot be loaded", CUDA_13, [*WITHOUT_GPU, "GPU"]),
    (
        import_that_fails,
        "CuPy cannot be imported: ImportError: libstdc++.so.6: version not found",
        "pip uninstall -y cupy-cuda13x && " + CUDA_13,
        ALL,
    ),
    (exclusive, "another process has taken it", "nvidia-smi lists the processes", ALL),
    (exclusive_as_older_drivers_say_it, "another process has taken it", "nvidia-smi", ALL),
    (prohibited, "compute mode lets no program", "--compute-mode=DEFAULT", ALL),
    (busy, "busy or out of reach", "nvidia-smi", ALL),
    (no_memory_for_a_context, "CUDA_ERROR_OUT_OF_MEMORY: the GPU's memory is full", "nvidia-", ALL),
    (no_memory, "CUDA_ERROR_OUT_OF_MEMORY: the GPU's memory is full", "nvidia-smi", ALL),
    (ecc, "ECC", "sudo nvidia-smi --gpu-reset", ALL),
]


@pytest.mark.parametrize(("change", "says", "remedy", "looks"), CAUSES)
def test_every_cause_has_its_sentence_and_its_remedy(machine, change, says, remedy, looks):
    change(machine)
    check, names = failed()
    assert says in check.detail
    assert remedy in check.remedy
    assert "insufficient" not in check.sentence
    assert "pip install fastnn" not in check.sentence
    assert "\n" not in check.sentence
    assert names == looks
    cheap = check.name not in ("import", "GPU")
    if change is no_cupy_and_no_driver:  # of what use would CuPy be?
        assert unavailable(None).startswith("no NVIDIA driver was found")
    else:
        assert unavailable(None) == (check.sentence if cheap else None)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (two_cupys, "CuPy"),
        (no_driver, "NVIDIA driver"),
        (driver_in_disorder, "NVIDIA driver"),
        (no_gpu, "GPUs"),
        (old_gpu, "GPUs"),
        (no_cublas, "libraries"),
        (import_that_fails, "import"),
        (exclusive, "GPU"),
    ],
)
def test_it_is_said_of_what(machine, change, name):
    change(machine)
    assert failed()[0].name == name


def test_a_gpu_whose_memory_is_full_is_let_go(machine):
    no_memory(machine)
    failed()
    assert machine.driver.called[-2:] == ["cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]


def test_a_cupy_for_cuda_12_takes_older_drivers_and_gpus(machine):
    machine.installed = {"cupy-cuda12x": "14.2.0"}
    machine.driver.version, machine.driver.gpus = 12020, [V100]
    assert all(check.ok for check in checks(None))
    assert machine.loaded == ["nvrtc 12", "cublas 12"]
    machine.driver.version = 11080
    assert "install NVIDIA's driver 525 or newer" in unavailable(None)
    machine.driver.version, machine.driver.gpus = 13000, [K80]
    assert "CUDA 12 needs 5.0" in unavailable(None)


@pytest.mark.parametrize("installed", [{"cupy": "14.2.0"}, {}], ids=["built", "on the path"])
def test_of_a_cupy_that_is_no_wheel_nothing_is_demanded(machine, installed):
    machine.installed, machine.driver.version = installed, 11080
    assert all(check.ok for check in checks(None))
    assert machine.loaded == []


def test_there_is_no_cuda_for_macos(machine, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    no_cupy_and_no_driver(machine)
    assert unavailable(None) == "there is no CUDA for macOS (use --device cpu)."


# Which GPU
# ------------------------------------------------------------------------------------------------


def test_every_gpu_is_listed_and_the_one_asked_for_is_tried(machine):
    machine.driver.gpus = [V100, H200]
    assert "cuda:0 has compute capability 7.0" in unavailable(None)
    assert unavailable(1) is None
    details = {check.name: check.detail for check in checks(1)}
    assert details["GPUs"] == (
        "cuda:0 Tesla V100, compute capability 7.0, 16.0 GiB; "
        "cuda:1 NVIDIA H200, compute capability 9.0, 140.0 GiB"
    )
    assert details["GPU"].startswith("cuda:1 can be had")


def test_a_number_beyond_the_last_gpu(machine):
    check, names = failed(4)
    assert check.sentence == (
        "there is no cuda:4, only cuda:0 NVIDIA H200, compute capability 9.0, 140.0 GiB "
        "(use --device cuda:0)."
    )
    assert names == WITHOUT_GPU


def test_cuda_visible_devices_renumbers(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    says = "CUDA_VISIBLE_DEVICES is '2,3', and cuda:0 the first of that list"
    assert any(says in check.detail for check in checks(None))
    assert says in unavailable(3)


@pytest.mark.parametrize("value", ["", "-1"])
def test_cuda_visible_devices_hides(machine, monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    no_gpu(machine)
    assert unavailable(None) == (
        f"no GPU is visible, since CUDA_VISIBLE_DEVICES is {value!r} (unset CUDA_VISIBLE_DEVICES)."
    )


# The cache
# ------------------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_is_no_hindrance(machine, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTNN_CACHE_DIR", str(tmp_path / "file"))
    *_, check = checks(None)
    assert (check.name, check.ok, check.remedy) == ("kernel cache", True, None)
    assert "compiled again at every start" in check.detail
    assert "FASTNN_CACHE_DIR names another folder" in check.detail


# Whatever happens
# ------------------------------------------------------------------------------------------------

FUNCTIONS = sorted(name[1:] for name in vars(Driver) if name.startswith("_cu"))
CODES = [1, 2, 3, 34, 46, 100, 101, 201, 214, 304, 719, *range(800, 812), 999, 12345, -1]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_error_of_the_driver_raises(machine, function):
    for code in CODES:
        machine.driver.errors = {function: code}
        made = list(checks(None))
        assert all(check.ok or check.remedy for check in made)
        assert [name for name in NAMES if name in {check.name for check in made}] == [
            check.name for check in made
        ]
        reason = unavailable(None)
        assert reason is None or reason == next(c.sentence for c in made if not c.ok)


def test_an_error_without_a_name_is_told_by_its_number(machine):
    machine.driver.errors["cuInit"] = 12345
    assert failed()[0].detail == "CUDA's error 12345: cuInit failed"


def test_a_library_that_is_no_driver(machine):
    machine.driver = object()
    check, _ = failed()
    assert (check.name, check.remedy) == ("NVIDIA driver", None)
    assert check.detail.startswith("it cannot be found out: AttributeError: ")
    assert check.sentence == unavailable(None)


@pytest.mark.parametrize("what", ["version", "find_spec", "find_driver", "load", "import_module"])
def test_nothing_unexpected_raises(machine, monkeypatch, what):
    def fail(*_):
        raise ValueError("not\nexpected")

    where = {
        "version": (cuda_probe.metadata, "version"),
        "find_driver": (cuda_driver, "_driver"),
        "load": (cuda_probe, "_load"),
    }.get(what, (cuda_probe, what))
    monkeypatch.setattr(*where, fail)
    check, _ = failed()
    assert "ValueError: not expected" in check.sentence
    assert unavailable(None) == (None if what == "import_module" else check.sentence)


# This machine, whatever it is
# ------------------------------------------------------------------------------------------------


def test_what_is_said_of_this_machine():
    made = list(checks(None))
    assert made
    assert all(check.detail for check in made)
    cheap = [check for check in made if check.name not in ("import", "GPU", "kernel cache")]
    failed = [check.sentence for check in cheap if not check.ok]
    assert unavailable(None) in failed if failed else unavailable(None) is None


def test_it_does_not_import_cupy():
    program = (
        "import sys; from fastnn.backends.cuda_probe import unavailable; unavailable(None); "
        "print([name for name in sys.modules if name.split('.')[0] == 'cupy'])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


def test_where_cupy_is_and_no_driver_that_is_what_is_said(monkeypatch):
    pytest.importorskip("cupy")

    def nowhere():
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(cuda_driver, "_driver", nowhere)
    made = {check.name: check for check in checks(None)}
    assert made["CuPy"].ok
    assert made["NVIDIA driver"].detail == "no NVIDIA driver was found"
    assert "no NVIDIA driver" in unavailable(None)
    assert "GPUs" not in made
