import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastnn.cache import cache_folder
from fastnn.data import BUILT_IN, load_dataset
from fastnn.errors import ArgumentError, DataError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_name_that_is_listed_is_known(monkeypatch):
    monkeypatch.setattr("fastnn.data.loading.load_mnist", lambda on_progress: "mnist")
    assert load_dataset("mnist") == "mnist"
    for name in sorted(BUILT_IN.keys() - {"mnist"}):
        assert load_dataset(name).name == name


@pytest.mark.parametrize("as_path", [str, Path])
def test_paths(idx_folder, arrays, as_path):
    assert load_dataset(as_path(idx_folder)).name == str(idx_folder)
    np.savez("mine.NPZ.npz", **arrays)
    assert load_dataset(as_path("mine.NPZ.npz")).name == "mine.NPZ.npz"


def test_a_name_wins_over_a_path(idx_folder):
    idx_folder.rename("digits")
    assert load_dataset("digits").features == 64
    assert load_dataset("./digits").features == 20
    assert load_dataset(Path("digits")).features == 20


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("digtis", "unknown data set 'digtis'. Did you mean 'digits'.*folder"),
        ("MNIST", "unknown data set 'MNIST'"),
        ("", "unknown data set ''"),
        ("nul\0", "unknown data set"),
        ("x" * 999, "unknown data set"),
        ("missing.npz", "missing.npz: cannot be read: No such file"),
        ("no/such/folder", "no/such/folder: cannot be read: No such file"),
        ("loop", "loop: cannot be read"),
        ("text.txt", "text.txt: is neither a folder of IDX files nor an .npz"),
        (".", "lacks train-images"),
        ("folder.npz", "lacks train-images"),
    ],
)
def test_what_is_no_data_set(elsewhere, source, says):
    (elsewhere / "loop").symlink_to("loop")
    (elsewhere / "text.txt").write_text("5 0 4 1 9")
    (elsewhere / "folder.npz").mkdir()
    with pytest.raises(DataError, match=says):
        load_dataset(source)


@pytest.mark.parametrize("source", [None, 3, b"digits", ["digits"], np.zeros((2, 3))])
def test_what_is_no_path(source):
    with pytest.raises(ArgumentError, match="by its name or path"):
        load_dataset(source)


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("FASTNN_CACHE_DIR", "/some/where")
    assert cache_folder("data") == Path("/some/where/data")
    monkeypatch.setenv("FASTNN_CACHE_DIR", "")
    assert cache_folder("data").name == "data"
    assert cache_folder("data").parent.name == "fastnn"
    assert cache_folder("data").is_absolute()


def test_importing_loads_no_heavy_library():
    heavy = {"sklearn", "pooch", "requests", "urllib3", "platformdirs"}
    code = f"import sys, fastnn.data; print({heavy!r} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
