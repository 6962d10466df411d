"""CuPy on CUDA: kernels of our own, products by cuBLAS, and two ways to take many mini-batches.

What a GPU is told to do costs more than what a small network makes it do. So a training takes the
first of these plans that its network, its mini-batches and the GPU allow; the step's name says
which:

``resident``
    One launch for many mini-batches: a single block that keeps the weights in its registers.
``graph``
    The kernels and products of many mini-batches, recorded once, and launched as a whole.
``plain``
    The step of :mod:`fastnn.backprop`, kernel by kernel.

The first two come as ``streamed …`` where the data set does not fit the GPU's memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from numpy.typing import DTypeLike

from fastnn.backends import cuda_probe
from fastnn.backends.base import Check, Plan, Step
from fastnn.backends.cuda_gpu import Gpu
from fastnn.backends.cuda_graph import GraphStep
from fastnn.backends.cuda_graph import declined as graph_declined
from fastnn.backends.cuda_kernels import CudaKernels
from fastnn.backends.cuda_resident import Fit, Kind, ResidentStep, fit
from fastnn.backends.cuda_streaming import HostRows, StreamedStep
from fastnn.errors import DeviceError, known_name

__all__ = ["CupyBackend"]


class CupyBackend(CudaKernels):
    """One GPU.

    Parameters
    ----------
    index
        Its number among those that CUDA_VISIBLE_DEVICES leaves; default 0.
    dtype
        "float32" or "float64".
    precision
        Of products in float32: "full" (default), or "tf32", which rounds their factors to 11 bits
        for the tensor cores of GPUs from compute capability 8.0.

    Raises
    ------
    DeviceError
        If the GPU cannot do what is asked for.
    """

    name: ClassVar[str] = "cuda"
    precisions: ClassVar[tuple[str, ...]] = ("full", "tf32")

    def __init__(
        self, index: int | None = None, dtype: DTypeLike = "float32", precision: str = "full"
    ) -> None:
        known_name("precision", precision, self.precisions)
        gpu = self._open(index or 0, tf32=precision == "tf32")
        if precision == "tf32" and gpu.limits.capability < (8, 0):
            major, minor = gpu.limits.capability
            raise DeviceError(
                f"this GPU, of compute capability {major}.{minor}, has no tf32; that begins at 8.0"
            )
        super().__init__(index, dtype, gpu)
        self.precision = precision

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.index, self.dtype.name, self.precision)

    @staticmethod
    def _open(index: int, tf32: bool) -> Gpu:
        from fastnn.backends.cupy_gpu import CupyGpu

        return CupyGpu(index, tf32)

    @classmethod
    def unavailable(cls, index: int | None = None) -> str | None:
        """Return None, or why there is no such GPU to be used."""
        return cuda_probe.unavailable(index)

    @classmethod
    def checks(cls, index: int | None = None) -> Iterable[Check]:
        """Return what was looked at on the way to the GPU, in order."""
        return cuda_probe.checks(index)

    # The take-over -----------------------------------------------------------------------------

    def fused_step(self, plan: Plan) -> Step | None:
        """Return the first step in the order of this module's text that the plan allows."""
        name, how, _ = self._choice(plan)
        if name == "plain":
            return None

        def make(plan: Plan) -> Step:
            return ResidentStep(self.gpu, plan, self.dtype, how) if how else GraphStep(self, plan)

        return StreamedStep(self.gpu, plan, make) if _on_host(plan) else make(plan)

    def explain(self, plan: Plan) -> str:
        """Return which step the plan gets, and why."""
        name, _, why = self._choice(plan)
        streamed = "streamed " if _on_host(plan) and name != "plain" else ""
        return f"{streamed}{name}: {why}"

    def _choice(self, plan: Plan) -> tuple[str, Fit | None, str]:
        """Return the step's name, how it fits if it is the resident one, and why it is that."""
        if plan.weights is not None:
            return "plain", None, "the others take all samples alike, and these have weights"
        if plan.update is not None and not plan.update.is_descent:
            return "plain", None, "the others are for gradient descent, without clipping"
        if plan.dropout is not None:
            return "plain", None, "the others have no dropout"
        types = plan.inputs.dtype, self.dtype
        how = fit(plan.sizes, plan.batch_size, *types, self.gpu.limits, Kind.of(plan))
        if isinstance(how, Fit):
            return "resident", how, f"a block of {how.threads} threads holds {how.each} each"
        free, _ = self.gpu.free_memory()
        reason = graph_declined(plan, self.dtype.itemsize, free)
        if reason is None:
            return "graph", None, f"not resident, since {how}"
        return "plain", None, f"not resident, since {how}; no graph, since {reason}"


def _on_host(plan: Plan) -> bool:
    return isinstance(plan.inputs, HostRows) or isinstance(plan.targets, HostRows)
