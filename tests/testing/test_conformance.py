"""The tester tested: devices that are wrong in one respect each must fail the suite."""

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from fastnn import DeviceError
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.testing import BackendConformance, StrictBackend

FILE = Path(__file__).with_name("wrong_backends.py")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BACKENDS = load(FILE)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Run all suites as a stranger would, without this project's configuration of pytest.

    Returns, for each suite, the names of its tests and of those that failed.
    """
    folder = tmp_path_factory.mktemp("conformance")
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    environment.pop("FASTNN_REQUIRE", None)
    options = ["-q", "--tb=no", "-rN", "-p", "no:cacheprovider", "-c", folder / "pytest.ini"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--junitxml", folder / "report.xml", FILE],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    found = {}
    for case in ET.parse(folder / "report.xml").iter("testcase"):
        suite = case.get("classname").rpartition(".")[2]
        run, failed = found.setdefault(suite, (set(), set()))
        name = case.get("name").partition("[")[0]
        run.add(name)
        if case.find("failure") is not None:
            failed.add(name)
        assert case.find("error") is None, ET.tostring(case)
    return found


@pytest.mark.parametrize("name", [cls.__name__ for cls in BACKENDS.WRONG])
def test_what_is_wrong_fails(outcomes, name):
    _, failed = outcomes[f"Test{name}"]
    assert failed == set(getattr(BACKENDS, name).fails)


def test_what_is_right_passes(outcomes):
    run, failed = outcomes["TestRight"]
    assert run == set(BACKENDS.Right.fails)
    assert not failed


def suite(device):
    return type("TestSome", (BackendConformance,), {"device": device})()


@pytest.mark.parametrize(
    ("required", "outcome"),
    [
        (None, pytest.skip.Exception),
        ("", pytest.skip.Exception),
        ("cuda,pocket", pytest.skip.Exception),
        ("numpy:99", pytest.fail.Exception),
        ("cuda,numpy", pytest.fail.Exception),
    ],
)
def test_a_device_that_is_not_there_is_skipped_with_its_reason_or_fails(
    monkeypatch, required, outcome
):
    if required is None:
        monkeypatch.delenv("FASTNN_REQUIRE", raising=False)
    else:
        monkeypatch.setenv("FASTNN_REQUIRE", required)
    with pytest.raises(outcome, match="numpy has no device number 99"):
        suite("numpy:99").make("float32")


def test_a_device_that_no_one_knows_is_not_skipped():
    with pytest.raises(DeviceError, match="Did you mean 'numpy'"):
        suite("numpi").make("float32")


@pytest.mark.parametrize("device", ["numpy", NumpyBackend, StrictBackend])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_suite_takes_a_name_or_a_class(device, dtype):
    assert suite(device).make(dtype).dtype == dtype


def test_every_kernel_and_crossing_has_a_test():
    """A backend's public methods, by name or by what the suite calls the test of it."""
    methods = {name for name in dir(NumpyBackend) if not name.startswith("_")}
    otherwise = {
        "asarray": "round_trip",
        "to_numpy": "to_numpy_is_a_copy",
        "empty": "empty_has_its_shape_and_dtype",
        "views": "views_are_consecutive_and_share_memory",
        "fused_step": "the_fused_step_descends_the_reference",
        "checks": "it_says_whether_it_can_be_used",
        "explain": "the_fused_step_descends_the_reference",
        "unavailable": "it_says_whether_it_can_be_used",
        "detail": "it_says_whether_it_can_be_used",
        "precision": "it_says_whether_it_can_be_used",
        "precisions": "it_says_whether_it_can_be_used",
        "spec": "it_says_whether_it_can_be_used",
        "name": "it_says_whether_it_can_be_used",
        "synchronize": "it_learns_as_numpy_does",
    }
    for method in methods:
        assert f"test_{otherwise.get(method, method)}" in BACKENDS.TESTS
