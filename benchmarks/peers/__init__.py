"""The same training by others, a module each, in the form that is fastest for each.

A peer is a function of a Task that returns a Peer: one that trains on an order of samples, and one
that returns the parameters then. What it may do beforehand is not timed: scale the images, put the
data on its device, compile, try which of its forms is the faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import NamedTuple

from peers import by_hand, jax_scan, per_sample, pytorch, scikit_learn, thinc_chain
from peers.task import RATE, Arrays, Peer, Task

import fastnn
from fastnn.comparing import apart, rounding
from fastnn.training import epoch_order

__all__ = ["PEERS", "RATE", "Arrays", "Check", "Entry", "Peer", "Task"]


class Entry(NamedTuple):
    """A peer that there may be: how it is made, by which library, and where it computes."""

    make: Callable[[Task], Peer]
    library: str
    platforms: tuple[str, ...]

    @property
    def installed(self) -> bool:
        return find_spec(self.library) is not None


PEERS = {
    "NumPy by hand": Entry(by_hand.train, "numpy", ("cpu",)),
    "the book's method": Entry(per_sample.train, "numpy", ("cpu",)),
    "JAX": Entry(jax_scan.train, "jax", ("cpu", "cuda")),
    "PyTorch": Entry(pytorch.eager, "torch", ("cpu", "cuda")),
    "torch.compile": Entry(pytorch.compiled, "torch", ("cpu", "cuda")),
    "PyTorch CUDA graph": Entry(pytorch.graph, "torch", ("cuda",)),
    "scikit-learn": Entry(scikit_learn.train, "sklearn", ("cpu",)),
    "Thinc": Entry(thinc_chain.train, "thinc", ("cpu",)),
}


class Check:
    """Who trains on some mini-batches must then have the parameters that NumPy has in float64.

    Attributes
    ----------
    data
        The first images of the task: 20 full mini-batches, and a tail as long as an epoch's.
    order
        Theirs in the first epoch.
    """

    STEPS = 20

    def __init__(self, task: Task) -> None:
        n, m = len(task.data), task.batch_size
        few = min(self.STEPS * m + n % m, n)
        self.data = fastnn.Dataset(task.data.x[:few], task.data.labels[:few])
        self.order = epoch_order(few, seed=0, epoch=1)
        exact = by_hand.train(replace(task, data=self.data), "float64")
        exact.epoch(self.order)
        self._right = exact.parameters()
        steps = -(-few // m)
        self.allowed = rounding(max(*task.sizes, m)) * steps
        if task.precision == "tf32":  # which rounds each factor of a product to 11 bits
            self.allowed = 8 * 2**-11 * steps**0.5

    def __call__(self, who: str, got: Arrays) -> float:
        """Return how far parameters are off, in parts of their array's largest.

        Raises
        ------
        ValueError
            If that is more than rounding does.
        """
        off = apart(got, self._right)
        if not off <= self.allowed:
            raise ValueError(
                f"{who} does not do the same: after {len(self.order)} samples its parameters are "
                f"{off:.1e} of the largest off, and rounding explains {self.allowed:.1e}"
            )
        return off
