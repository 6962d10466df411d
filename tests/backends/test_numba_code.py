"""The compiled code on disk, as processes share it: three of them start at once, and a fourth.

Two of these compile, what float32 needs; that takes most of the time.
"""

import contextlib
import inspect
import io
import os
import subprocess
import sys

import numpy as np
import pytest


def learn():
    """Train a little, and print which step did it, with which vectors, and what came out."""
    import numpy as np

    import fastnn
    from fastnn.backends.numba_code import modules

    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 256, (60, 5), dtype=np.uint8), rng.integers(0, 4, 60)
    x[15:35] = 0  # among them two whole mini-batches
    network = fastnn.Network([5, 16, 4], device="numba", dtype="float32", seed=1)
    history = fastnn.train(network, (x, labels), epochs=2, batch_size=7, shuffle=False)
    numbers = network.backend.to_numpy(network.buffer).tolist()
    print(history.step, modules()[0].tiles.SIMD, *numbers, sep=";")


PROGRAM = inspect.getsource(learn) + "\nlearn()"
# A processor with shorter vectors than AVX-512's, as Numba knows it.
SHORTER = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx2,+avx,+fma,+bmi,+bmi2,+popcnt,+lzcnt,+f16c,+movbe,+sse4.2",
}


def start(folder, cache, **env):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={
            **os.environ,
            "FASTNN_CACHE_DIR": str(folder / cache),
            "FASTNN_DISABLE_PLUGINS": "1",
            "TMPDIR": str(folder / "temporary"),
            **env,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process):
    """What a process learned, and the lines that it said."""
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return out, err.splitlines()


@pytest.fixture(scope="module")
def learned():
    """What is learned with the compiled code that this process has."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        learn()
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """For the caches: one in "cache", and none in "file", which is no folder."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "temporary").mkdir()
    (folder / "file").write_text("")
    return folder


@pytest.fixture(scope="module")
def at_once(folder, learned):
    """The results of three: two that share a cache, and one that can have none.

    The last is made to believe that it has shorter vectors, so that they are tried as well.
    """
    shorter = SHORTER if ";AVX-512;" in learned else {}
    processes = [
        start(folder, "cache"),
        start(folder, "cache"),
        start(folder, "file/cache", **shorter),
    ]
    try:
        return [result(process) for process in processes]
    finally:
        for process in processes:
            with process:
                process.kill()


def test_of_two_processes_at_once_one_compiles_for_both(at_once, learned):
    (one, said), (other, other_said), _ = at_once
    assert one == other == learned
    assert learned.startswith("epoch;")
    (line,) = said + other_said
    assert "compiling" in line


@pytest.mark.usefixtures("at_once")
def test_later_ones_find_it_done(folder, learned):
    with start(folder, "cache") as process:
        assert result(process) == (learned, [])


def test_where_compiled_code_cannot_be_kept_it_is_made_all_the_same(at_once, folder, learned):
    out, said = at_once[-1]
    (cannot,) = [line for line in said if "compiling" not in line]
    assert "cannot be kept" in cannot
    assert "FASTNN_CACHE_DIR" in cannot
    assert len(said) <= 2
    assert os.listdir(folder / "temporary") == []
    assert (folder / "file").read_text() == ""
    (step, simd, *numbers), (_, own_simd, *expected) = out.split(";"), learned.split(";")
    assert (step, simd) == ("epoch", {"AVX-512": "AVX2"}.get(own_simd, own_simd))
    np.testing.assert_allclose(np.array(numbers, float), np.array(expected, float), atol=1e-5)
