import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from importlib.metadata import entry_points as real_entry_points
from types import ModuleType

import numpy as np
import pytest

from fastnn import ArgumentError, DeviceError, DeviceUnavailable, Network, device, devices, train
from fastnn.backends import cuda_probe, registry
from fastnn.backends.base import Backend
from fastnn.backends.numba_cpu import NumbaBackend
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.backends.registry import GROUP, usable
from fastnn.testing import StrictBackend


class Toy(NumpyBackend):
    name = "toy"


class Away(NumpyBackend):
    name = "away"

    @classmethod
    def unavailable(cls, index=None):
        return "no such card is plugged in."


class Incomplete(NumpyBackend):
    """As if two methods had been forgotten."""

    gather, activate = Backend.gather, Backend.activate


class FailsWhenAsked(NumpyBackend):
    @classmethod
    def unavailable(cls, index=None):
        raise ValueError("division by cucumber")


class FailsWhenMade(NumpyBackend):
    def __init__(self, index=None, dtype="float32"):
        raise ValueError("division by cucumber")


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    """As on a machine without a GPU, whatever this one has."""
    monkeypatch.setattr(cuda_probe, "unavailable", lambda index: "there is no GPU in these tests.")
    monkeypatch.setattr(cuda_probe, "checks", lambda index: ())


@pytest.fixture
def plug_ins(monkeypatch):
    """Return a function that registers devices: name="module:Class"; test_toys holds the above."""
    module = ModuleType("test_toys")
    for cls in (Toy, Away, Incomplete, FailsWhenAsked, FailsWhenMade):
        setattr(module, cls.__name__, cls)
    module.a_function = len
    monkeypatch.setitem(sys.modules, "test_toys", module)

    def register(*claims, **more):
        entries = [EntryPoint(*claim, GROUP) for claim in (*claims, *more.items())]
        monkeypatch.setattr(
            registry,
            "entry_points",
            lambda *, group: [entry for entry in entries if entry.group == group],
        )

    monkeypatch.delenv("FASTNN_DISABLE_PLUGINS", raising=False)
    return register


@pytest.fixture
def without_numba(monkeypatch):
    def unavailable(cls, index=None):
        return "the compiler is on holiday."

    monkeypatch.setattr(NumbaBackend, "unavailable", classmethod(unavailable))


def reports():
    return {report.name: report for report in devices()}


# Names
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "cls"),
    [
        ("auto", NumbaBackend),
        ("cpu", NumbaBackend),
        ("numba", NumbaBackend),
        ("numba:0", NumbaBackend),
        ("numpy", NumpyBackend),
        ("numpy:0", NumpyBackend),
    ],
)
def test_what_a_spec_means(spec, cls):
    backend = device(spec)
    assert type(backend) is cls
    assert backend.name == cls.name
    assert backend.dtype == np.float32


@pytest.mark.usefixtures("without_numba")
@pytest.mark.parametrize("spec", ["auto", "cpu"])
def test_where_numba_cannot_be_used_numpy_is(plug_ins, spec):
    plug_ins()
    assert type(device(spec)) is NumpyBackend
    assert usable() == ["numpy"]
    assert reports()["numba"].reason == "the compiler is on holiday."


@pytest.mark.usefixtures("without_numba")
@pytest.mark.parametrize("spec", ["numba", "numba:0"])
def test_no_other_takes_the_place_of_the_numba_that_is_asked_for(plug_ins, spec):
    plug_ins()
    with pytest.raises(DeviceUnavailable, match="cannot be used: the compiler is on") as error:
        device(spec)
    assert "usable here: numpy." in str(error.value)


@pytest.mark.parametrize(
    ("numba", "reason"),
    [
        (None, "not installed"),
        # As Numba says itself, where NumPy is newer than it knows.
        ("raise ImportError('Numba needs NumPy 1.0 or less')", "Numba needs NumPy 1.0 or less"),
    ],
    ids=["missing", "broken"],
)
def test_a_numba_that_cannot_be_imported_is_no_hindrance(tmp_path, numba, reason):
    program = (
        "import fastnn; (numba,) = [d for d in fastnn.devices() if d.name == 'numba']; "
        "print(fastnn.device('cpu').name, numba.reason)"
    )
    if numba is None:
        program = "import sys; sys.modules['numba'] = None; " + program
    else:
        (tmp_path / "numba").mkdir()
        (tmp_path / "numba" / "__init__.py").write_text(numba)
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "FASTNN_DISABLE_PLUGINS": "1"},
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    name, _, said = ran.stdout.partition(" ")
    assert name == "numpy"
    assert reason in said


@pytest.mark.parametrize("spec", ["auto", "cpu", "numba", "numpy"])
@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64"), "f8", float])
def test_precisions(spec, dtype):
    assert device(spec, dtype).dtype == np.float64


def test_a_backend_is_returned_as_it_is():
    backend = StrictBackend(dtype="float64")
    assert device(backend) is backend
    assert device(backend, "float64") is backend
    with pytest.raises(ArgumentError, match="computes in float64, not in float32"):
        device(backend, "float32")


@pytest.mark.parametrize("spec", ["numba", "numpy", NumpyBackend()], ids=["a", "b", "c"])
@pytest.mark.parametrize("dtype", ["nonsense", 5, "float16"])
def test_precisions_that_cannot_be(spec, dtype):
    with pytest.raises(ArgumentError, match="float32"):
        device(spec, dtype)


@pytest.mark.parametrize("spec", [None, 0, NumpyBackend, b"numpy", ["numpy"]])
def test_what_is_no_spec(spec):
    with pytest.raises(ArgumentError, match="a device is a name or a Backend"):
        device(spec)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("numpi", r"unknown device 'numpi'\. Did you mean 'numpy'\?  known: auto, cpu, .*numpy"),
        ("NUMPY", r"Did you mean 'numpy'\?"),
        ("zzz", r"unknown device 'zzz'\.  known: "),
        ("", r"unknown device ''\.  known: "),
        ("numpi:1", r"Did you mean 'numpy'"),
        ("nunba", r"unknown device 'nunba'\. Did you mean 'numba'\?  known: auto, cpu, .*numba"),
        ("numpy:1", r"'numpy:1' cannot be used: numpy has no device number 1\.\n  usable here: "),
        ("numba:1", r"'numba:1' cannot be used: numba has no device number 1\.\n  usable here: "),
        *(
            (f"numpy:{wrong}", "stands a number")
            for wrong in ("x", "", "-1", "1.5", "²", " 1", "1:2")
        ),
    ],
)
def test_specs_that_mean_nothing(spec, says):
    with pytest.raises(DeviceError, match=says) as error:
        device(spec)
    assert error.value.exit_code == 3


@pytest.mark.parametrize("spec", ["auto:1", "cpu:0"])
def test_a_choice_among_devices_has_no_number(spec):
    with pytest.raises(DeviceError) as error:
        device(spec)
    name = spec.split(":")[0]
    assert f"Did you mean '{name}'" not in str(error.value)
    assert "unknown" not in str(error.value)


def test_what_cannot_be_used_says_why_and_what_can(plug_ins):
    plug_ins(away="test_toys:Away")
    with pytest.raises(DeviceError, match="'away' cannot be used: no such card") as error:
        device("away")
    assert "usable here: numba, numpy." in str(error.value)
    assert "--device cpu" in str(error.value)


@pytest.mark.parametrize(("spec", "table"), [("auto", "AUTO"), ("cpu", "CPU")])
def test_only_auto_and_cpu_look_for_another(plug_ins, monkeypatch, spec, table):
    plug_ins(away="test_toys:Away", toy="test_toys:Toy")
    monkeypatch.setattr(registry, table, ("away", "toy", "numba", "numpy"))
    assert device(spec).name == "toy"
    monkeypatch.setattr(registry, table, ("away",))
    with pytest.raises(DeviceError, match=r"(?s)no device can be used.*away.*no such card"):
        device(spec)


# Plug-ins
# ------------------------------------------------------------------------------------------


def test_a_plug_in_is_found_by_its_name(plug_ins):
    plug_ins(toy="test_toys:Toy")
    assert type(device("toy", "float64")) is Toy
    assert reports()["toy"].source == "plug-in"
    assert reports()["numba"].source == reports()["numpy"].source == "built in"
    assert usable() == ["numba", "numpy", "toy"]
    with pytest.raises(DeviceError, match=r"Did you mean 'toy'\?"):
        device("toi")


# Reference to what is registered: what must be said of it
BROKEN = {
    "no_such_module:Backend": r"'x' is broken: no_such_module:Backend cannot be loaded \(Module",
    "test_toys:NoSuchClass": r"'x' is broken: test_toys:NoSuchClass cannot be loaded \(Attrib",
    "test_broken_toys:Backend": r"cannot be loaded \(ZeroDivisionError: division by zero\)",
    "test_toys": "is no Backend class",
    "test_toys:a_function": "is no Backend class",
    "json:JSONDecoder": "'x' is broken: json:JSONDecoder is no Backend class",
    "test_toys:Incomplete": "'x' is broken: Incomplete lacks activate, gather",
    "not an object reference": "'x' is broken",
    "test_toys:FailsWhenAsked": r"'x' is broken \(ValueError: division by cucumber\)",
    "test_toys:FailsWhenMade": r"'x' is broken \(ValueError: division by cucumber\)",
    "test_leaving_toys:Backend": r"cannot be loaded \(SystemExit: 3\)",
}


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Modules that are imported anew by each test."""
    (tmp_path / "test_broken_toys.py").write_text("1 / 0\n")
    (tmp_path / "test_leaving_toys.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("value", BROKEN)
def test_a_broken_plug_in_is_reported_and_takes_no_other_along(plug_ins, value):
    plug_ins(x=value, toy="test_toys:Toy")
    with pytest.raises(DeviceError, match=BROKEN[value]):
        device("x")
    assert "broken" in reports()["x"].reason
    assert usable() == ["numba", "numpy", "toy"]
    assert device("auto").name == "numba"


def test_a_name_with_two_claims_is_an_error_that_names_both(plug_ins):
    plug_ins(("toy", "test_toys:Toy"), ("toy", "others:Toy"))
    with pytest.raises(DeviceError, match=r"'toy' is claimed by test_toys:Toy and others:Toy"):
        device("toy")
    assert usable() == ["numba", "numpy"]


def test_one_claim_that_is_seen_twice_is_one(plug_ins):
    plug_ins(("toy", "test_toys:Toy"), ("toy", "test_toys:Toy"))
    assert type(device("toy")) is Toy


BUILT_IN = {"numba": NumbaBackend, "numpy": NumpyBackend}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_plug_in_cannot_take_the_name_of_a_built_in(plug_ins, monkeypatch, name):
    cls = BUILT_IN[name]
    plug_ins((name, "test_toys:Toy"))
    with pytest.raises(
        DeviceError, match=rf"'{name}' is claimed by .*{cls.__name__} and test_toys:Toy"
    ):
        device(name)
    assert "claimed" in reports()[name].reason
    monkeypatch.setenv("FASTNN_DISABLE_PLUGINS", "1")  # the way out
    assert type(device(name)) is cls


@pytest.mark.parametrize("spec", ["auto", "cpu"])
def test_no_choice_falls_on_a_plug_in_with_the_name_of_a_built_in(plug_ins, monkeypatch, spec):
    plug_ins(numba="test_toys:Toy")
    assert type(device(spec)) is NumpyBackend
    plug_ins(numpy="test_toys:Toy")
    assert type(device(spec)) is NumbaBackend
    plug_ins(numba="test_toys:Toy", numpy="test_toys:Toy")
    with pytest.raises(DeviceError, match=r"(?s)no device can be used.*'numba' is .*'numpy' is "):
        device(spec)
    monkeypatch.setenv("FASTNN_DISABLE_PLUGINS", "1")  # the way out
    assert type(device(spec)) is NumbaBackend


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_a_plug_in_cannot_take_the_name_of_a_choice(plug_ins, name):
    plug_ins((name, "test_toys:Toy"))
    assert type(device(name)) is NumbaBackend
    assert "cannot be called" in reports()[name].reason


def test_plug_ins_can_be_left_out(plug_ins, monkeypatch):
    plug_ins(toy="test_toys:Toy")
    monkeypatch.setenv("FASTNN_DISABLE_PLUGINS", "1")
    with pytest.raises(DeviceError, match="unknown device 'toy'"):
        device("toy")
    assert list(reports()) == ["cuda", "numba", "numpy"]
    monkeypatch.setenv("FASTNN_DISABLE_PLUGINS", "0")
    assert "toy" in reports()


# The real one
# ---------------------------------------------------------------------------------------


@pytest.fixture
def pocket(monkeypatch):
    monkeypatch.delenv("FASTNN_DISABLE_PLUGINS", raising=False)
    if not any(entry.name == "pocket" for entry in real_entry_points(group=GROUP)):
        pytest.fail("the device of tests/pocket is not installed: run `pip install ./tests/pocket`")
    return "pocket"


def test_an_installed_plug_in_is_found_by_its_entry_point(pocket):
    backend = device(pocket, "float64")
    assert type(backend).__module__ == "fastnn_pocket"
    assert (backend.name, backend.dtype) == ("pocket", np.float64)
    assert reports()[pocket].reason is None


def test_an_installed_plug_in_trains_as_numpy_does(pocket):
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 256, (53, 9), dtype=np.uint8), rng.integers(0, 3, 53)
    ours, its = (Network([9, 7, 3], device=name, dtype="float64") for name in ("numpy", pocket))
    history = train(its, (x, labels), epochs=3)
    train(ours, (x, labels), epochs=3)
    assert (history.device, history.step) == ("pocket", "plain")
    for one, other in zip(ours.weights, its.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
