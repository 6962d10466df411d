"""A network and what descends its cost, from the options that commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastnn.cli.output import foreign_code

if TYPE_CHECKING:
    from fastnn.data import Dataset, Datasets
    from fastnn.network import Network

__all__ = ["Blueprint", "descent_of"]


class Blueprint:
    """A network as the shape_options have it. What can be refused before the data is refused."""

    def __init__(
        self,
        device: str,
        precision: str,
        hidden: list[int],
        activation: str | list[str],
        output: str,
        cost: str,
        init: str,
        seed: int,
    ) -> None:
        from fastnn import device as find_device
        from fastnn.activations import layer_activations
        from fastnn.costs import check_pair
        from fastnn.errors import known_name
        from fastnn.initialisers import INITIALISERS

        layer_activations(activation, output, len(hidden))
        check_pair(cost, output)
        known_name("initialiser", init, INITIALISERS)
        with foreign_code():
            measured = device == "auto" and precision == "full"
            self._backend = None if measured else find_device(device, precision=precision)
        self._hidden, self._init, self._seed = hidden, init, seed
        self._description: dict[str, Any] = {
            "activation": activation,
            "output": output,
            "cost": cost,
        }

    def network(
        self,
        datasets: Datasets,
        train_set: Dataset,
        batch_size: int | None,
        descent: dict[str, Any],
        fused: bool,
    ) -> tuple[Network, bool, str]:
        """Return the network for data, whether to take its device's own step, and why this one.

        None of those steps is taken if not ``fused``.
        """
        from fastnn import Network
        from fastnn import device as find_device
        from fastnn.choosing import choose

        sizes = [datasets.features, *self._hidden, datasets.classes]
        backend, own, why = self._backend, fused, ""
        if backend is None:
            m = batch_size if batch_size is not None else len(train_set)
            with foreign_code():
                chosen = choose(
                    sizes, train_set, m, fused=fused, descent=descent, **self._description
                )
                backend = find_device(chosen.device)
            own, why = chosen.fused, chosen.why
        network = Network(
            sizes, **self._description, init=self._init, seed=self._seed, device=backend
        )
        return network, own, why


def _list(dropout: float | list[float]) -> list[float]:
    return dropout if isinstance(dropout, list) else [dropout]


def descent_of(
    optimiser: str,
    momentum: float,
    nesterov: bool,
    l1: float,
    l2: float,
    clip_norm: float | None,
    dropout: float | list[float],
    class_weights: str | tuple[float, ...] | None,
    hidden: list[int],
) -> dict[str, Any]:
    """Return what :func:`fastnn.train` takes of the descent_options, by the hidden layers."""
    from fastnn.checks import number_between, positive_number
    from fastnn.dropout import layer_rates
    from fastnn.errors import ArgumentError
    from fastnn.optimisers import SGD, optimiser_of

    rule = optimiser_of(optimiser)
    if optimiser == SGD.name:
        rule = SGD(momentum, nesterov)
    elif momentum or nesterov:
        raise ArgumentError(f"--momentum and --nesterov are of sgd; {optimiser} has its own")
    return {
        "optimiser": rule,
        "l1": number_between("--l1", l1, 0),
        "l2": number_between("--l2", l2, 0),
        "clip_norm": None if clip_norm is None else positive_number("--clip-norm", clip_norm),
        # Without hidden layers there is but the input.
        "dropout": layer_rates(dropout if hidden else _list(dropout), len(hidden)) or 0.0,
        "class_weights": class_weights,
    }
