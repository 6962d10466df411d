import operator

import numpy as np
import pytest

from fastnn.testing import BackendConformance, StrictBackend


class TestStrict(BackendConformance):
    device = StrictBackend


@pytest.fixture
def backend():
    return StrictBackend()


@pytest.fixture
def handle(backend):
    """(2, 2) of ones."""
    return backend.asarray(np.ones((2, 2), np.float32))


@pytest.mark.parametrize(
    "use",
    [
        lambda handle: handle + handle,
        lambda handle: 2 * handle,
        lambda handle: np.ones((2, 2)) * handle,
        lambda handle: handle[0],
        lambda handle: operator.setitem(handle, 0, 1),
        lambda handle: handle @ handle,
        len,
        list,
        float,
        np.asarray,
        np.sum,
        lambda handle: handle.shape,
        lambda handle: handle.T,
        lambda handle: handle.copy(),
    ],
)
def test_a_handle_is_opaque(handle, use):
    with pytest.raises((TypeError, AttributeError)):
        use(handle)


def kernels(backend, a, out):
    """Every kernel, on arrays (2, 2) of the backend but for ``a`` as an input or ``out``."""
    own = backend.asarray(np.ones((2, 2), np.float32))
    order = backend.asarray(np.arange(2, dtype=np.int32))
    bias = backend.asarray(np.ones(2, np.float32))
    return {
        "gather": lambda: backend.gather(a, order, 0, 2, 1.0, out),
        "matmul": lambda: backend.matmul(a, own, out),
        "matmul from the right": lambda: backend.matmul(own, a, out),
        "hadamard": lambda: backend.hadamard(a, "tanh", out),
        "output_delta": lambda: backend.output_delta(a, own, "tanh", "quadratic", out),
        "output_delta of y": lambda: backend.output_delta(own, a, "tanh", "quadratic", out),
        "forward": lambda: backend.forward(a, own, bias, "tanh", out),
        "propagate_delta": lambda: backend.propagate_delta(a, own, own, "tanh", out),
    }


KERNELS = list(kernels(StrictBackend(), None, None))
WRONG = {
    "an array of another backend": lambda: StrictBackend().asarray(np.ones((2, 2), np.float32)),
    "a NumPy array": lambda: np.ones((2, 2), np.float32),
    "nothing": lambda: None,
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("role", ["input", "out"])
def test_only_its_own_arrays_are_taken(backend, handle, kernel, what, role):
    wrong = WRONG[what]()
    roles = (wrong, handle) if role == "input" else (handle, wrong)
    with pytest.raises(TypeError, match="no array of this backend"):
        kernels(backend, *roles)[kernel]()


@pytest.mark.parametrize("kernel", KERNELS)
def test_only_its_own_precision_is_taken(backend, handle, kernel):
    wrong = backend.asarray(np.ones((2, 2), np.float64))
    for roles in ((wrong, handle), (handle, wrong)):
        with pytest.raises(TypeError, match="float64"):
            kernels(backend, *roles)[kernel]()


@pytest.mark.parametrize("kernel", KERNELS)
def test_out_may_not_be_an_input(backend, handle, kernel):
    with pytest.raises(ValueError, match="out overlaps an input"):
        kernels(backend, handle, handle)[kernel]()


def test_out_may_not_overlap_an_input(backend):
    flat = backend.asarray(np.ones(8, np.float32))
    (a,), (_, out) = backend.views(flat, [(2, 2)]), backend.views(flat, [(2,), (2, 2)])
    with pytest.raises(ValueError, match="out overlaps an input"):
        backend.matmul(a, backend.asarray(np.ones((2, 2), np.float32)), out)


@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "hadamard"])
@pytest.mark.parametrize("shape", [(3, 2), (1, 2, 2)])  # NumPy would spread into the second
def test_out_has_the_shape_of_the_result(backend, handle, kernel, shape):
    with pytest.raises(ValueError, match="a result of shape"):
        kernels(backend, handle, backend.empty(shape, "float32"))[kernel]()


@pytest.mark.parametrize(
    ("order", "start", "stop", "error"),
    [
        (np.arange(4), 0, 2, TypeError),  # int64
        (np.arange(4, dtype=np.int32), 3, 5, ValueError),
        (np.arange(4, dtype=np.int32), -2, 0, ValueError),
        (np.arange(4, dtype=np.int32) + 9, 0, 2, IndexError),
    ],
)
def test_gather_keeps_within_its_order(backend, order, start, stop, error):
    rows = backend.asarray(np.ones((4, 3), np.float32))
    out = backend.empty((2, 3), "float32")
    with pytest.raises(error):
        backend.gather(rows, backend.asarray(order), start, stop, 1.0, out)


@pytest.mark.parametrize(
    ("dtype", "trap"),
    [("float32", np.nan), ("float64", np.nan), ("uint8", 255), ("int32", 2**31 - 1)],
)
def test_fresh_memory_is_a_trap(backend, dtype, trap):
    np.testing.assert_array_equal(backend.to_numpy(backend.empty((2, 3), dtype)), trap)


def test_host_and_device_share_nothing(backend):
    host = np.ones(3, np.float32)
    array = backend.asarray(host)
    host[:] = 7
    np.testing.assert_array_equal(backend.to_numpy(array), 1)
    with pytest.raises(TypeError, match="not a NumPy array"):
        backend.asarray([1.0, 2.0])


@pytest.mark.parametrize("shapes", [[(9,)], [(4,), (2, 3)]])
def test_views_keep_within_their_memory(backend, shapes):
    with pytest.raises(ValueError, match="no room"):
        backend.views(backend.asarray(np.ones(8, np.float32)), shapes)
