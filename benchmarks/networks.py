"""The networks that are measured, by name. Needs nothing but Python."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple


class Network(NamedTuple):
    sizes: tuple[int, ...]
    batch_size: int
    gpu_only: bool = False  # a mini-batch takes a processor seconds

    @property
    def shape(self) -> str:
        return "-".join(map(str, self.sizes))

    @property
    def title(self) -> str:
        return f"{self.shape} b{self.batch_size}"

    @property
    def widest(self) -> int:
        """The hidden layer with the most units, by its place in sizes."""
        return max(range(1, len(self.sizes) - 1), key=self.sizes.__getitem__)

    @property
    def flops_per_sample(self) -> int:
        return flops_per_sample(self.sizes)


def flops_per_sample(sizes: tuple[int, ...] | list[int]) -> int:
    """Two for each weight: forward, to update, and BP2 but for the first layer."""
    weights = [n_in * n_out for n_in, n_out in pairwise(sizes)]
    return 2 * (3 * sum(weights) - weights[0])


NETWORKS = {
    "book": Network((784, 30, 10), 10),
    "video": Network((784, 16, 16, 10), 32),
    "book100": Network((784, 100, 10), 10),
    "mid": Network((784, 128, 10), 128),
    "wide": Network((784, 1024, 1024, 10), 256),
    "huge": Network((784, 4096, 4096, 4096, 10), 4096, gpu_only=True),
}


def on_gpu(device: str) -> bool:
    return device.partition(":")[0] == "cuda"


def for_device(device: str) -> list[str]:
    """Return the names of the networks that can be measured on a device."""
    return [name for name, network in NETWORKS.items() if on_gpu(device) or not network.gpu_only]
