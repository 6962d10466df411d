"""The BLAS behind the compiled products, and what finding it leaves as it was."""

import ctypes
import itertools
import json
import os
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from fastnn import device
from fastnn.backends.blas import find_blas
from fastnn.kernels import reference
from fastnn.threads import OWN_BLAS, processors, using

# The uncached one
find_anew = find_blas.__wrapped__


@pytest.fixture
def no_openblas_of_our_own(monkeypatch):
    monkeypatch.setattr("fastnn.backends.blas.find_spec", lambda name: None)


@pytest.fixture
def an_openblas_of_our_own():
    import_module(OWN_BLAS)  # whoever lacks it is told so


@pytest.fixture
def teams(monkeypatch):
    """The number of threads of each product, in turn."""
    from fastnn.backends import numba_cpu

    sizes, together = [], numba_cpu.together

    def noted(team, work):
        sizes.append(team)
        together(team, work)

    monkeypatch.setattr(numba_cpu, "together", noted)
    return sizes


# (m, k, n): of 20 million multiplications, two threads' worth; and with less rows than threads
SHAPES = [(257, 301, 263), (2, 301, 263)]


@pytest.mark.usefixtures("an_openblas_of_our_own")
@pytest.mark.parametrize("threads", [None, 1, 2, 3])
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_large_product_is_right_however_many_threads_share_it(teams, dtype, m, k, n, threads):
    rng = np.random.default_rng(m)
    backend = device("numba", dtype)
    variants = [
        *itertools.product([False, True], [False, True], [(1.0, 0.0)]),
        (False, True, (-0.25, 0.75)),
        (True, False, (0.5, 1.0)),
    ]
    for transpose_a, transpose_b, (alpha, beta) in variants:
        a = rng.standard_normal((k, m) if transpose_a else (m, k)).astype(dtype)
        b = rng.standard_normal((n, k) if transpose_b else (k, n)).astype(dtype)
        out = rng.standard_normal((m, n)).astype(dtype) if beta else np.full((m, n), np.nan, dtype)
        how = {
            "transpose_a": transpose_a,
            "transpose_b": transpose_b,
            "alpha": alpha,
            "beta": beta,
        }
        exact = reference.matmul(*(each.astype(np.float64) for each in (a, b, out)), **how)
        with using(threads):
            backend.matmul(a, b, out, **how)
        atol = 8 * np.finfo(dtype).eps * k**0.5 * np.abs(exact).max()
        np.testing.assert_allclose(out, exact, rtol=0, atol=atol)
    paying = max(1, min(processors(), m * k * n // 10_000_000))
    assert teams == [threads or paying] * len(variants)


def test_a_blas_with_threads_of_its_own_is_left_to_share_the_work(monkeypatch, teams):
    monkeypatch.setattr(
        "fastnn.backends.numba_cpu.find_blas", lambda: find_blas()._replace(single=False)
    )
    a, out = np.ones((300, 300), np.float32), np.empty((300, 300), np.float32)
    with using(2):
        device("numba").matmul(a, a, out)
    assert teams == [1]
    np.testing.assert_array_equal(out, 300)


def gemm(address, dtype):
    """Fortran's GEMM at an address, for square matrices in columns: out ← 2 a b - out."""
    number = ctypes.c_float if dtype == np.float32 else ctypes.c_double

    def call(a, b, out):
        n, alpha, beta = ctypes.c_int32(len(a)), number(2), number(-1)
        no = ctypes.c_char(b"N")
        places = [ctypes.c_void_p(array.ctypes.data) for array in (a, b, out)]
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 13)(address)
        by = ctypes.byref
        sizes = [by(n)] * 3
        arguments = [by(no), by(no), *sizes, by(alpha), places[0], by(n), places[1], by(n)]
        function(
            *(
                ctypes.cast(each, ctypes.c_void_p)
                for each in (*arguments, by(beta), places[2], by(n))
            )
        )

    return call


def assert_usable(blas):
    for name, dtype in (("sgemm", np.float32), ("dgemm", np.float64)):
        rng = np.random.default_rng(0)
        a, b, out = (np.asfortranarray(rng.integers(-9, 9, (7, 7)), dtype) for _ in range(3))
        expected = 2 * a @ b - out
        gemm(getattr(blas, name), dtype)(a, b, out)
        np.testing.assert_array_equal(out, expected)  # whole numbers: exact


@pytest.mark.usefixtures("an_openblas_of_our_own")
def test_our_own_openblas_leaves_the_sharing_to_us():
    blas = find_anew()
    assert blas.single
    assert "OpenBLAS" in blas.detail
    assert_usable(blas)


@pytest.mark.usefixtures("no_openblas_of_our_own")
def test_without_it_there_is_scipys_blas():
    blas = find_anew()
    assert not blas.single
    assert "SciPy" in blas.detail
    assert_usable(blas)


# Prints, before and after the BLAS is found, the variables and each library's number of threads.
WATCH = """
import json, os, numpy, scipy.linalg, threadpoolctl

def state():
    variables = {name: value for name, value in os.environ.items() if "OPENBLAS" in name}
    pools = threadpoolctl.threadpool_info()
    return variables, {pool["filepath"]: pool["num_threads"] for pool in pools}

before = state()
from fastnn.backends.blas import find_blas
find_blas()
print(json.dumps([before, state()]))
"""


@pytest.mark.usefixtures("an_openblas_of_our_own")
@pytest.mark.parametrize("number", [None, "2", ""])
def test_finding_it_changes_no_setting_and_no_other_library(number):
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    env |= {"OPENBLAS_VERBOSE": "0"} | ({} if number is None else {"OPENBLAS_NUM_THREADS": number})
    ran = subprocess.run(
        [sys.executable, "-c", WATCH], capture_output=True, text=True, check=True, env=env
    )
    (variables, others), (variables_after, all_after) = json.loads(ran.stdout)
    assert variables_after == variables
    assert variables.get("OPENBLAS_NUM_THREADS") == number
    assert len(others) >= 2  # NumPy's and SciPy's
    assert {path: all_after[path] for path in others} == others
    (own,) = all_after.keys() - others.keys()
    assert all_after[own] == 1
