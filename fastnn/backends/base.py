"""The contract between the network and a device.

Above this line an array is an opaque handle: no operators, no slicing, no ``.shape``. A device
gives the four crossings and six kernels marked abstract below; everything else has a default
written over those, which a device replaces where it can do better. What each kernel computes is
specified by the function of the same name in :mod:`fastnn.kernels.reference`, and proven by
:class:`fastnn.testing.BackendConformance`.

Shapes, with m samples in a mini-batch, samples as rows, all of the backend's dtype::

    a, y, delta (m, n_out)    a_prev (m, n_in)    w (n_out, n_in)    b (n_out,)

Rules for kernels: write ``out`` and nothing else, keep no memory, never wait for the device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnn.errors import ArgumentError
from fastnn.kernels import reference

__all__ = ["Array", "Backend", "Check", "Layer", "Plan", "Step", "checked_dtype", "pieces"]

Array: TypeAlias = Any  # a device's own array
Shape: TypeAlias = tuple[int, ...]


def checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype if it is float32 or float64, or raise an ArgumentError."""
    for floats in (np.dtype("float32"), np.dtype("float64")):
        with suppress(TypeError):  # from what names no dtype at all
            if floats == dtype:
                return floats
    raise ArgumentError(f"dtype must be 'float32' or 'float64', not {dtype!r}")


def pieces(flat: Array, shapes: Sequence[Shape]) -> list[Array]:
    """Return consecutive pieces of a flat array that has NumPy's slices and reshape."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [
        flat[end - math.prod(shape) : end].reshape(shape)
        for end, shape in zip(ends, shapes, strict=True)
    ]


class Check(NamedTuple):
    """What was looked at to find out whether a device can be used.

    Attributes
    ----------
    name
        What was looked at: "NVIDIA driver".
    ok
        Whether the device can be used as far as that goes.
    detail
        What was found, a plain sentence or a phrase.
    remedy
        The one command or action that mends it; None where there is nothing to mend.
    """

    name: str
    ok: bool
    detail: str
    remedy: str | None = None

    @property
    def sentence(self) -> str:
        """What was found, and behind it what mends it."""
        return f"{self.detail} ({self.remedy})." if self.remedy else f"{self.detail}."


class Layer(NamedTuple):
    """One layer on its device: a = σ(a_prev wᵀ + b)."""

    w: Array  # (n_out, n_in)
    b: Array  # (n_out,)
    activation: str


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a step needs to know: what is trained, and on what.

    Attributes
    ----------
    layers
        From the first hidden layer to the output layer. Their arrays are updated in place.
    sizes
        Units of every layer, the input first.
    cost
        The name of the cost.
    inputs
        Samples as rows (n, sizes[0]) on the device, bytes or floats.
    scale
        What the rows are multiplied by on their way into the network: 1/255 for bytes, else 1.
    targets
        One row a sample (n, sizes[-1]) on the device, one-hot, as bytes.
    n
        The number of samples.
    batch_size
        Samples in a mini-batch; the last of an epoch may be smaller.
    weights
        How much each sample's cost counts (n, 1), on the device and of the backend's dtype; None
        where all count alike. A fused step that does not know them declines.
    update
        What changes the parameters by the gradient of a mini-batch, a ``fastnn.optimisers.Update``;
        None for plain gradient descent. A fused step that does not know it declines.
    dropout
        Which units rest, a ``fastnn.dropout.Dropout``, or None; the same goes for it.
    """

    layers: tuple[Layer, ...]
    sizes: tuple[int, ...]
    cost: str
    inputs: Array
    scale: float
    targets: Array
    n: int
    batch_size: int
    weights: Array | None = None
    update: Any = None
    dropout: Any = None


class Step(Protocol):
    """Training on consecutive mini-batches of an order, however a device likes to do it."""

    @property
    def name(self) -> str:
        """What the history, the JSON and the benchmarks call this step."""
        ...

    @property
    def stride(self) -> int:
        """How many mini-batches one call may take at the most."""
        ...

    def __call__(self, order: Array, start: int, stop: int, rate: float, shrink: float) -> None:
        """Train on the samples order[start:stop], cut into mini-batches of the plan's size.

        Each mini-batch of m samples does w ← shrink · w - rate · ∂C/∂w and b ← b - rate · ∂C/∂b, or
        what the plan's update does in place of these differences, with the gradient averaged over
        its own m samples, also where m is what was left over at the end; where samples have
        weights, it is that of 1/m Σ_x w_x C_x. ``order`` lies on the device. The layers hold the
        new parameters when the work that was enqueued is done.
        """
        ...


class Feed(Protocol):
    """A network's outputs for all of some samples, however a device likes to find them."""

    def __call__(self, layers: Sequence[Layer], out: Array) -> None:
        """Let out be what the layers make of the samples, one after the other; (n · sizes[-1],)."""
        ...


class Backend(ABC):
    """A device that can train: subclass it, register the class, prove it by the conformance suite.

    Parameters
    ----------
    index
        Which of several devices of the kind; None for the default one.
    dtype
        "float32" or "float64": the precision of parameters and of everything computed. A device
        gives both; gradients are checked in float64.
    """

    name: ClassVar[str]
    # Of products in float32, those that the class takes as its third argument.
    precisions: ClassVar[tuple[str, ...]] = ("full",)
    precision = "full"

    def __init__(self, index: int | None = None, dtype: DTypeLike = "float32") -> None:
        self.index = index
        self.dtype = checked_dtype(dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        """A backend is copied by making another: handles and compiled code are its own."""
        return type(self), (self.index, self.dtype.name)

    @classmethod
    def unavailable(cls, index: int | None = None) -> str | None:
        """Return None, or a sentence that says why it cannot be used. Cheap; never raises."""
        return None if index in (None, 0) else f"{cls.name} has no device number {index}."

    @classmethod
    def checks(cls, index: int | None = None) -> Iterable[Check]:
        """Return what was looked at, in order, for ``fastnn devices``.

        Unlike :meth:`unavailable` this may take its time and try the device itself.
        """
        return ()

    @property
    def spec(self) -> str:
        """The name by which :func:`fastnn.device` finds it: "cuda", or with its number "cuda:1"."""
        return self.name if self.index is None else f"{self.name}:{self.index}"

    @property
    def detail(self) -> str:
        """What this device is, for a person: library, version, model."""
        return ""

    # The only crossings between host and device
    # ----------------------------------------------------------

    @abstractmethod
    def asarray(self, host: NDArray[Any]) -> Array:
        """Return the host array on the device, its dtype kept.

        It may share the host's memory, which no one changes from then on; the array keeps what it
        needs of it alive.
        """

    @abstractmethod
    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Return a copy on the host, once everything enqueued before is done."""

    @abstractmethod
    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        """Return a C-ordered array of undefined content."""

    @abstractmethod
    def views(self, flat: Array, shapes: Sequence[Shape]) -> list[Array]:
        """Return consecutive pieces of a flat array, each in its shape, sharing its memory."""

    def synchronize(self) -> None:
        """Wait until everything enqueued is done. A device that computes at once needs none."""
        return

    # Kernels every device gives
    # ---------------------------------------------------------------------------

    @abstractmethod
    def gather(
        self, rows: Array, order: Array, start: int, stop: int, scale: float, out: Array
    ) -> None:
        """out[i] = scale · rows[order[start + i]].

        rows (n, k), uint8 or of the backend's dtype; order (n,) int32; out (stop - start, k).
        """

    @abstractmethod
    def matmul(
        self,
        a: Array,
        b: Array,
        out: Array,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        """out ← alpha · op(a) op(b) + beta · out, where op transposes if it is told to.

        op(a) (m, k), op(b) (k, n), out (m, n); beta = 0 overwrites whatever was there, NaN too.
        """

    @abstractmethod
    def sum_rows(self, delta: Array, out: Array, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        """out ← alpha · Σ_i delta_i + beta · out.

        delta (m, n), out (n,); beta = 0 overwrites whatever was there, NaN too.
        """

    @abstractmethod
    def activate(self, b: Array, activation: str, out: Array) -> None:
        """out ← σ(out + b), b added to every row; softmax along the row.

        out (m, n), b (n,); activation is a key of :data:`fastnn.kernels.reference.SIGMA`.
        """

    @abstractmethod
    def hadamard(self, a: Array, activation: str, out: Array) -> None:
        """out ← out ⊙ σ′(z), with a = σ(z).

        out, a (m, n); activation is a key of :data:`fastnn.kernels.reference.SIGMA_PRIME`.
        """

    @abstractmethod
    def output_delta(self, a: Array, y: Array, activation: str, cost: str, out: Array) -> None:
        """BP1: out = ∇_a C ⊙ σ′(z^L).

        a, y, out (m, n); cost is a key of ``GRADIENT_FACTOR`` or of ``MATCHED`` in
        :mod:`fastnn.kernels.reference`.
        """

    # Kernels with a default
    # -------------------------------------------------------------------------------

    def forward(self, a_prev: Array, w: Array, b: Array, activation: str, out: Array) -> None:
        """out = σ(a_prev wᵀ + b)."""
        self.matmul(a_prev, w, out, transpose_b=True)
        self.activate(b, activation, out)

    def propagate_delta(
        self, delta: Array, w: Array, a: Array, activation: str, out: Array
    ) -> None:
        """BP2: out = (δ^{l+1} w^{l+1}) ⊙ σ′(z^l)."""
        self.matmul(delta, w, out)
        self.hadamard(a, activation, out)

    def gradient(
        self, delta: Array, a_prev: Array, scale: float, out_w: Array, out_b: Array
    ) -> None:
        """BP4 and BP3: out_w = scale · δᵀ a_prev, out_b = scale · Σ_i δ_i; scale = 1/m."""
        self.matmul(delta, a_prev, out_w, transpose_a=True, alpha=scale)
        self.sum_rows(delta, out_b, alpha=scale)

    def descend(
        self, w: Array, b: Array, delta: Array, a_prev: Array, rate: float, shrink: float
    ) -> None:
        """w ← shrink · w - rate · δᵀ a_prev, b ← b - rate · Σ_i δ_i; rate = η/m.

        Plain gradient descent as one GEMM straight into w, with no buffer for the gradient.
        """
        self.matmul(delta, a_prev, w, transpose_a=True, alpha=-rate, beta=shrink)
        self.sum_rows(delta, b, alpha=-rate, beta=1.0)

    # What not every training needs: a device that has no kernel of its own takes the arrays to the
    # host and back, which is right, and slow. In updates all have w's shape.
    # ---------------------------------------------------------------------

    def scale_rows(self, weights: Array, out: Array) -> None:
        """out[i] ← w_i · out[i]; weights (m, 1), out (m, n)."""
        self._on_the_host(lambda d, w: (reference.scale_rows(d, w),), [out], [weights])

    def momentum(self, w: Array, velocity: Array, gradient: Array, by: reference.Momentum) -> None:
        """v ← μv - s and w ← shrink · w + v, by Nesterov + μv - s; s = η (∂C/∂w + λ₁ sgn w + λ₂ w).

        w and velocity are changed.
        """
        self._on_the_host(reference.momentum, [w, velocity], [gradient], by)

    def adam(
        self, w: Array, mean: Array, square: Array, gradient: Array, by: reference.Adam
    ) -> None:
        """m ← β₁m + (1 - β₁)g, s ← β₂s + (1 - β₂)g², w ← shrink · w - η m̂ / (√ŝ + ε).

        g = ∂C/∂w + λ₁ sgn w + λ₂ w, m̂ = m / (1 - β₁ᵗ), ŝ = s / (1 - β₂ᵗ) with t mini-batches
        taken. w, mean and square are changed.
        """
        self._on_the_host(reference.adam, [w, mean, square], [gradient], by)

    def clip(self, gradient: Array, most: float) -> None:
        """g ← g · min(1, most / ‖g‖), with the Euclidean length of all of it; g (k,)."""
        self._on_the_host(lambda g: (reference.clip(g, most),), [gradient], [])

    def drop(self, a: Array, by: reference.Dropped, out: Array) -> None:
        """Inverted dropout: out_k = 0 if draw_k < rate, else a_k / (1 - rate).

        a, out (m, n), which may be the same array.
        """
        self._on_the_host(lambda _, a: (reference.drop(a, by),), [out], [a])

    def _on_the_host(
        self,
        kernel: Callable[..., tuple[NDArray[Any], ...]],
        outs: Sequence[Array],
        inputs: Sequence[Array],
        *how: Any,
    ) -> None:
        """Let the outs be what a kernel of the reference makes of them and the inputs."""
        results = kernel(*map(self.to_numpy, (*outs, *inputs)), *how)
        first = self.asarray(np.zeros(1, np.int32))
        for out, result in zip(outs, results, strict=True):
            (row,) = self.views(out, [(1, result.size)]) if result.ndim == 1 else (out,)
            rows = result.astype(self.dtype).reshape(-1, result.shape[-1])
            order = first if len(rows) == 1 else self.asarray(np.arange(len(rows), dtype=np.int32))
            self.gather(self.asarray(rows), order, 0, len(rows), 1.0, row)

    # The take-over
    # ----------------------------------------------------------------------------------------

    def fused_step(self, plan: Plan) -> Step | None:
        """Return a step that takes many mini-batches a call, or None for what is not supported.

        What needs to be compiled for the plan is compiled here, before the clock runs. What the
        device does not support it declines here, by None; a step that fails later is an
        error. The conformance suite holds every fused step against the plain one of
        :mod:`fastnn.backprop`.
        """
        return None

    def fused_feed(self, sizes: Sequence[int], rows: Array, scale: float, n: int) -> Feed | None:
        """Return what feeds all samples forward in one call, or None for what is not supported.

        rows (n, sizes[0]), uint8 or of the backend's dtype, times ``scale`` are the samples. As
        with a fused step, what fails later is an error, and the conformance suite holds it against
        the plain feeding forward.
        """
        return None

    def explain(self, plan: Plan) -> str:
        """Return a sentence: which step :meth:`fused_step` gives for this plan, and why."""
        return ""
