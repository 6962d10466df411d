"""How a mini-batch's gradient changes the parameters.

What is descended is C = C₀ + λ₁/n Σ|w| + λ₂/2n Σw², the mean cost and penalties on the weights,
never on the biases, with n training samples. A training hands λ/n to its plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np

from fastnn.backends.base import Array, Backend, Layer
from fastnn.checks import number_between, yes_or_no
from fastnn.errors import ArgumentError, known_name
from fastnn.kernels import reference

__all__ = ["OPTIMISERS", "SGD", "Adam", "AdamW", "Optimiser", "Turn", "Update", "optimiser_of"]


class Turn(NamedTuple):
    """What an update goes by in one mini-batch."""

    rate: float  # η
    taken: int  # mini-batches so far, this one among them
    l1: float  # λ₁/n and λ₂/n; 0 for biases
    l2: float
    shrink: float  # what w is multiplied by beside the update; 1 for biases


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent: v ← μv - η∇C, w ← w + v; with Nesterov w ← w + μv - η∇C.

    Parameters
    ----------
    momentum
        μ, from 0 to below 1. Default 0: w ← w - η∇C.
    nesterov
        Whether the velocity looks ahead: w moves by what v will be without another gradient.

    Raises
    ------
    ArgumentError
        If the momentum is out of its range, or there is none for Nesterov.
    """

    momentum: float = 0.0
    nesterov: bool = False

    name: ClassVar[str] = "sgd"
    learning_rate: ClassVar[float] = 0.5  # where none is given
    buffers: ClassVar[int] = 1  # of numbers that are kept, one for each parameter

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", number_between("momentum", self.momentum, 0, 1))
        object.__setattr__(self, "nesterov", yes_or_no("nesterov", self.nesterov))
        if self.nesterov and not self.momentum:
            raise ArgumentError("Nesterov's method needs a momentum above 0, such as 0.9")

    @property
    def decoupled(self) -> bool:
        """Whether λ₂ shrinks the weights beside the update; without momentum it is all the same."""
        return not self.momentum

    def update(
        self,
        backend: Backend,
        w: Array,
        gradient: Array,
        kept: Sequence[Array],
        by: Turn,
    ) -> None:
        """Change w by its gradient, and the buffers that are kept for it.

        Parameters
        ----------
        backend
            The device of the arrays, which all have w's shape.
        w, gradient, kept
            Weights or biases, ∂C₀/∂w, and as many more as :attr:`buffers`, zeros at first.
        by
            The numbers of this mini-batch.
        """
        (velocity,) = kept
        how = reference.Momentum(by.rate, self.momentum, self.nesterov, by.l1, by.l2, by.shrink)
        backend.momentum(w, velocity, gradient, how)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015): w ← w - η m̂ / (√ŝ + ε), by running means of ∇C and of its square.

    m ← β₁m + (1 - β₁)∇C and s ← β₂s + (1 - β₂)(∇C)²; m̂ = m / (1 - β₁ᵗ) and ŝ = s / (1 - β₂ᵗ) after
    t mini-batches.

    Parameters
    ----------
    beta1, beta2
        How much of the means stays, from 0 to below 1. Defaults 0.9 and 0.999.
    epsilon
        ε, 1e-30 or more. Default 1e-8.

    Raises
    ------
    ArgumentError
        If a number is out of its range.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    name: ClassVar[str] = "adam"
    learning_rate: ClassVar[float] = 0.001
    buffers: ClassVar[int] = 2
    decoupled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        # Below the least epsilon √s is 0 in float32 where that is not.
        for name, least, below in (("beta1", 0, 1), ("beta2", 0, 1), ("epsilon", 1e-30, math.inf)):
            number = number_between(name, getattr(self, name), least, below)
            object.__setattr__(self, name, number)  # Python's, which leaves arrays their dtype

    def update(
        self,
        backend: Backend,
        w: Array,
        gradient: Array,
        kept: Sequence[Array],
        by: Turn,
    ) -> None:
        """See :meth:`SGD.update`."""
        mean, square = kept
        betas = self.beta1, self.beta2
        penalties = by.l1, by.l2, by.shrink
        how = reference.Adam(by.rate, *betas, self.epsilon, by.taken, *penalties)
        backend.adam(w, mean, square, gradient, how)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam that shrinks weights by 1 - ηλ₂/n beside the update (Loshchilov and Hutter, 2019)."""

    name: ClassVar[str] = "adamw"
    decoupled: ClassVar[bool] = True


Optimiser: TypeAlias = SGD | Adam
OPTIMISERS: dict[str, type[Optimiser]] = {each.name: each for each in (SGD, Adam, AdamW)}


def optimiser_of(given: str | Optimiser) -> Optimiser:
    """Return the optimiser of that name with its defaults, or the one given.

    Raises
    ------
    ArgumentError
        If there is none of that name, or it is no optimiser.
    """
    if isinstance(given, SGD | Adam):
        return given
    if not isinstance(given, str):
        raise ArgumentError(
            f"optimiser must be a name or a fastnn.SGD, Adam or AdamW, not {given!r}"
        )
    known_name("optimiser", given, OPTIMISERS)
    return OPTIMISERS[given]()


class Update:
    """An optimiser at work on a network's parameters, with all that it keeps.

    Parameters
    ----------
    backend
        The device.
    layers, sizes
        Of the network; the layers' arrays are changed.
    optimiser
        The rule.
    l1, l2
        λ₁/n and λ₂/n: what they add to the gradient of the weights.
    clip
        How long the gradient of a mini-batch is at the most, without the penalties; None for any.

    Attributes
    ----------
    optimiser, l1, l2, clip
        As given.
    gradients
        For each layer the arrays that ∂C₀/∂w and ∂C₀/∂b are to be written to.
    kept
        The optimiser's numbers, a flat array each with one for every parameter.
    taken
        Mini-batches so far.
    """

    def __init__(
        self,
        backend: Backend,
        layers: Sequence[Layer],
        sizes: Sequence[int],
        optimiser: Optimiser,
        l1: float = 0.0,
        l2: float = 0.0,
        clip: float | None = None,
    ) -> None:
        self.optimiser, self.l1, self.l2, self.clip = optimiser, l1, l2, clip
        self._backend, self.taken = backend, 0
        shapes: list[tuple[int, ...]] = []
        for n_in, n_out in pairwise(sizes):
            shapes += (n_out, n_in), (n_out,)
        count = sum(map(math.prod, shapes))

        def zeros() -> Array:
            return backend.asarray(np.zeros(count, backend.dtype))

        self._gradient = zeros()
        self.kept = tuple(zeros() for _ in range(optimiser.buffers))
        gradients = backend.views(self._gradient, shapes)
        self.gradients = list(zip(gradients[::2], gradients[1::2], strict=True))
        kept = zip(*(backend.views(each, shapes) for each in self.kept), strict=True)
        parameters = [array for layer in layers for array in (layer.w, layer.b)]
        self._pieces = list(zip(parameters, gradients, kept, strict=True))

    @property
    def is_descent(self) -> bool:
        """Whether it is gradient descent, with or without momentum and penalties.

        What a subclass makes of it only that subclass knows.
        """
        return type(self.optimiser) is SGD and self.clip is None

    def kept_by_layer(self, number: int) -> list[tuple[Array, Array]]:
        """Return one of the kept arrays as those for w and b of each layer."""
        kept = [kept[number] for *_, kept in self._pieces]
        return list(zip(kept[::2], kept[1::2], strict=True))

    def __call__(self, rate: float, shrink: float) -> None:
        """Change the parameters by the gradients, which are those of a mini-batch."""
        self.taken += 1
        if self.clip is not None:
            self._backend.clip(self._gradient, self.clip)
        for number, (w, gradient, kept) in enumerate(self._pieces):
            # Weights and biases in turn; of these nothing is penalised.
            penalties = (0.0, 0.0, 1.0) if number % 2 else (self.l1, self.l2, shrink)
            by = Turn(rate, self.taken, *penalties)
            self.optimiser.update(self._backend, w, gradient, kept, by)
