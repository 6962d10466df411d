"""The CUDA device by the conformance suite, its kernels' own sources run on the host."""

from typing import ClassVar

from emulated import EmulatedBackend

from fastnn.backends.cuda_gpu import Limits
from fastnn.testing import BackendConformance


class Graph(EmulatedBackend):
    """On a GPU where no network fits one block."""

    has: ClassVar = {"limits": Limits((9, 0), shared_memory=0), "order": 1}


class TestResident(BackendConformance):
    device = EmulatedBackend


class TestGraph(BackendConformance):
    device = Graph
