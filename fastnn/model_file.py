"""The model file: safetensors, readable by every library that knows the format.

Tensors ``layers.0.weight`` (n_out, n_in) and ``layers.0.bias`` (n_out,), as PyTorch names and lays
them out; one metadata key, ``fastnn``, holds the rest as JSON. Nothing in it is ever executed. The
same network makes the same bytes. A checkpoint is such a file, too, with more in it: it loads as
its network, and no model is saved in its place.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fastnn.backends.base import checked_dtype, pieces
from fastnn.errors import ArgumentError, ModelError
from fastnn.outputs import check_output, replace

if TYPE_CHECKING:
    from fastnn.backends.base import Backend
    from fastnn.network import Network

__all__ = ["CHECKPOINT", "FORMAT_VERSION", "check_writable", "content", "load", "read", "save"]

FORMAT_VERSION = 1
CHECKPOINT = "checkpoint"  # what a description has, too, that is a checkpoint's

PathLike = str | os.PathLike[str]


def save(network: Network, path: PathLike) -> None:
    """Write the network; see :meth:`fastnn.Network.save`."""
    target = check_writable(os.fspath(path))
    replace(target, content(network, network.backend.to_numpy(network.buffer)))


def content(
    network: Network,
    parameters: NDArray[Any],
    tensors: Mapping[str, NDArray[Any]] | None = None,
    **more: Any,
) -> bytes:
    """Return a network's file with all parameters in one array; more can be in it, and be said."""
    from safetensors.numpy import save as to_bytes

    arrays = iter(pieces(parameters, network.shapes))
    layers = {}
    for number, (w, b) in enumerate(zip(arrays, arrays, strict=True)):
        layers[f"layers.{number}.weight"], layers[f"layers.{number}.bias"] = w, b
    description = {
        "format_version": FORMAT_VERSION,
        "sizes": network.sizes,
        "activations": network.activations,
        "cost": network.cost,
        "init": network.init,
        "trained_on": network.trained_on,
        **more,
    }
    # With a second key of metadata, chance would put one or the other first.
    return to_bytes(layers | dict(tensors or {}), {"fastnn": json.dumps(description)})


def load(path: PathLike, device: str | Backend = "auto") -> Network:
    """Read a network; see :meth:`fastnn.Network.load`."""
    from fastnn.network import Network

    description, tensors = read(os.fspath(path))
    try:
        _check_version(path, description["format_version"])
        if CHECKPOINT in description:
            tensors = {name: each for name, each in tensors.items() if name.startswith("layers.")}
        activations = [str(name) for name in description["activations"]]
        weights = [tensors.pop(f"layers.{number}.weight") for number in range(len(activations))]
        biases = [tensors.pop(f"layers.{number}.bias") for number in range(len(activations))]
        dtypes = {checked_dtype(array.dtype) for array in (*weights, *biases)}
        if tensors or len(dtypes) != 1:
            raise ArgumentError("its tensors are not those of its layers")
        network = Network.from_parameters(
            weights,
            biases,
            activation=activations[:-1],
            output=activations[-1],
            cost=description["cost"],
            device=device,
            dtype=dtypes.pop() if isinstance(device, str) else None,
        )
        if list(network.sizes) != description["sizes"]:
            said = reprlib.repr(description["sizes"])
            raise ArgumentError(f"it says that its sizes are {said}, and they are {network.sizes}")
        network.init = None if description["init"] is None else str(description["init"])
        origin = description["trained_on"]
        if origin is not None:
            network.trained_on = {key: str(origin[key]) for key in ("name", "sha256")}
    except ArgumentError as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    except (KeyError, TypeError, IndexError) as error:
        raise ModelError(f"{path} is damaged: its description is not complete") from error
    return network


def check_writable(path: PathLike) -> Path:
    """Return the file that saving to a path will write, its links followed, or say why it cannot.

    Meant to be asked before the work whose result is to be saved.

    Raises
    ------
    OutputError
        If the folder does not exist or cannot be written to; if something other than a model of
        ours is there, which writing would destroy.
    """
    return check_output(path, "a fastnn model", _is_model)


def read(path: PathLike) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what a model file says of itself, and its tensors."""
    from safetensors import SafetensorError, safe_open

    try:
        if not os.path.isfile(path):
            kind = "is not a file" if os.path.exists(path) else "does not exist"
            raise ModelError(f"the model {path} {kind}")
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get("fastnn")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged, or no model file: {error}") from error
    except (TypeError, AttributeError) as error:  # of a dtype that NumPy lacks, such as bfloat16
        raise ModelError(f"{path} holds numbers of a type that NumPy lacks: {error}") from error
    except OSError as error:
        raise ModelError(f"the model {path} cannot be read: {error.strerror or error}") from error
    if text is None:
        raise ModelError(f"{path} holds tensors, but was not written by fastnn")
    try:
        description = json.loads(text)
    except (ValueError, RecursionError):
        description = None
    if not isinstance(description, dict):
        raise ModelError(f"{path} is damaged: its description cannot be read")
    return description, tensors


def _is_model(path: Path) -> bool:
    try:
        description, _ = read(path)
    except ModelError:
        return False
    return CHECKPOINT not in description


def _check_version(path: PathLike, version: object) -> None:
    if version == FORMAT_VERSION:
        return
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ModelError(
            f"{path} has format version {version}, which a newer fastnn wrote; "
            f"this one reads version {FORMAT_VERSION}. Upgrade fastnn-mlp."
        )
    raise ArgumentError(f"it has the format version {version!r}")
