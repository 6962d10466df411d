"""What stays of a training that is killed: its state at the end of an epoch, in a folder.

``last.safetensors`` holds the state, and a training that goes on from there comes to the same bits.
``best.safetensors`` is the model of the best epoch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fastnn import model_file
from fastnn import state as state_file
from fastnn.checks import function_or_none, whole_number, yes_or_no
from fastnn.data import Dataset
from fastnn.errors import ArgumentError, DataError, ModelError, OutputError
from fastnn.outputs import alone, cannot_write, check_output, clear_remains, replace
from fastnn.state import State
from fastnn.told import check_same, plain

if TYPE_CHECKING:
    from fastnn.network import Network

__all__ = ["Checkpoint"]

LAST, BEST = "last.safetensors", "best.safetensors"

# Of what a training was told, what may be another when it goes on.
FREE = {"epochs", "device", "precision", "fused", "threads"}


class Checkpoint:
    """A folder that a training keeps its state in; give one to :func:`fastnn.train`.

    >>> fastnn.train(network, train_set, checkpoint=fastnn.Checkpoint("run"))

    If that is killed, at whatever moment, the same call with ``fastnn.Checkpoint("run",
    resume=True)`` goes on from the last checkpoint, and ends with the same weights and the same
    history, bit for bit but for the times, on the same device. The network's own parameters are
    then of no matter. ``last.safetensors`` in the folder holds the state; ``best.safetensors`` is
    the model of the best epoch, the first of equals: by the accuracy on the validation set, else on
    the test set, else by the cost. :meth:`fastnn.Network.load` reads both. They are written while
    the next epoch is trained; when the training ends, they are there.

    Parameters
    ----------
    folder
        Where it is kept. It is made when training begins.
    every
        After how many epochs one is written, 1 or more. The last epoch's is written in any case.
        Default 1, or as before.
    resume
        Whether to go on from what is in the folder. Else there must not be a checkpoint in it.
        Default False.
    on_error
        Called with the :class:`fastnn.OutputError` if a checkpoint cannot be written, as where the
        disk is full, at the end of the next epoch, after which it is tried again. Default None: the
        error ends the training. The checkpoint before is there in either case.

    Attributes
    ----------
    settings
        What the training was told that is in the folder; empty for a new one.
    network
        The one that is trained; before it begins, of one that goes on, as it is in the folder.

    Raises
    ------
    ArgumentError
        If ``every`` is out of its range, ``resume`` neither True nor False, or ``on_error`` no
        function.
    OutputError
        If the folder cannot be written to, or holds a checkpoint and the training is a new one.
    ModelError
        If the training cannot go on, since there is no checkpoint or it is damaged.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every: int | None = None,
        *,
        resume: bool = False,
        on_error: Callable[[OutputError], Any] | None = None,
    ) -> None:
        if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
            raise ArgumentError(f"a checkpoint's folder must have a name, not {folder!r}")
        function_or_none("on_error", on_error)
        self.folder, self.on_error = Path(folder), on_error
        self.settings: dict[str, Any] = {}
        self.network: Network  # when there is one
        self._last, self._best = self.folder / LAST, self.folder / BEST
        self._state: State | None = None
        self._unwritten: State | None = None
        self._told: _Beside[dict[str, Any]] | None = None
        self._writing: tuple[State, _Beside[None]] | None = None
        self._failed, self._held = False, ExitStack()
        self._best_epoch: int | None = None  # whose model is known to be in the folder
        self._resume = yes_or_no("resume", resume)
        if resume:
            before = self._read()
            every = before if every is None else every
        self.every = 1 if every is None else whole_number("every", every, 1)
        self._check(resume)

    @property
    def done(self) -> int:
        """How many epochs are in the folder."""
        return 0 if self._state is None else len(self._state.epochs)

    @property
    def files(self) -> list[Path]:
        """The folder, and what is written in it."""
        return [self.folder, self._last, self._best]

    def begin(
        self,
        network: Network,
        sets: Mapping[str, Dataset],
        settings: Mapping[str, Any],
        kept: int,
    ) -> State | None:
        """Return the state to go on from, or None for a new training.

        Parameters
        ----------
        network
            Whose parameters they are to be.
        sets
            All that is trained on and measured.
        settings
            All else that the training is told.
        kept
            How many arrays its optimiser keeps.

        Raises
        ------
        ArgumentError, DataError
            If the one in the folder is another training: the sentence names the difference.
        ModelError
            If its optimiser kept something else.
        OutputError
            If the folder has become such that nothing can be written there, or another training is
            at work there.
        """
        if self._resume:
            self._seek()
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        with ExitStack() as held:
            busy = f"cannot write {self.folder}: another training is at work there"
            held.enter_context(alone(self._last, busy, needed=False))
            self._told = _Beside(_told, sets, settings)
            self._check(self._resume)
            self._state = self._best_epoch = self._unwritten = None  # of an earlier training
            self._failed = False
            if self._resume:
                self._read()  # another may have gone on meanwhile
                self._compare(self.network, network, self._told.result())
            for file in (self._last, self._best):
                clear_remains(file)
            self.network = network
            if self._state is not None:
                if len(self._state.kept) != kept:
                    raise ModelError(f"{self._last} is damaged: it lacks what the optimiser keeps")
                # It may have been killed between the two files.
                self._keep_best(self._state)
            self._held = held.pop_all()
        return self._state

    def note(self, state: State) -> None:
        """Keep the state at the end of an epoch, and begin to write it if it is time."""
        self._unwritten = state
        if self._writing is not None and self._writing[1].done:
            self._end_writing()
        if self._failed or len(state.epochs) % self.every == 0:
            self._begin_writing(state)

    def write(self) -> None:
        """Write the state that was noted last, unless it is written, and wait until it is."""
        try:
            self._end_writing()
            if self._unwritten is not None:
                self._begin_writing(self._unwritten)
                self._end_writing()
        finally:
            self._told = None
            self._held.close()

    def _begin_writing(self, state: State) -> None:
        self._end_writing()
        self._writing = state, _Beside(self._write, state)

    def _end_writing(self) -> None:
        """Wait for what is being written, and say what has become of it."""
        if self._writing is None:
            return
        (state, written), self._writing = self._writing, None
        self._failed = True
        try:
            written.result()
        except OutputError as error:
            if self.on_error is None:
                raise
            self.on_error(error)
            return
        self._failed = False
        if state is self._unwritten:
            self._unwritten = None

    def _write(self, state: State) -> None:
        if self._told is not None:
            self.settings = self._told.result()
        replace(self._last, state_file.content(self.network, state, self.settings, self.every))
        self._state = state
        self._keep_best(state)

    def _keep_best(self, state: State) -> None:
        if self._best_epoch == state.best_epoch:
            return
        model = model_file.content(self.network, state.best)
        try:
            there = self._best.read_bytes()
        except OSError:
            there = b""
        if there != model:
            replace(self._best, model)
        self._best_epoch = state.best_epoch

    def _check(self, resume: bool) -> None:
        """Refuse a folder that cannot be written to, or that a new training would take away."""
        if not os.path.exists(self.folder):
            check_output(self.folder, "a checkpoint", lambda _: True)
            return
        if not resume and os.path.lexists(self._last):
            raise OutputError(
                f"{self.folder} holds the checkpoint of another training: go on with that "
                f"(--resume {self.folder}), or choose another folder"
            )
        if not resume and os.path.lexists(self._best):
            raise OutputError(
                f"{self.folder} holds the best model of another training: choose another folder"
            )
        check_output(self._last, "a checkpoint", lambda _: True)
        model_file.check_writable(self._best)

    def _seek(self) -> None:
        """Say what is missing, unless there is a checkpoint."""
        if not self.folder.is_dir():
            raise ModelError(f"there is no checkpoint in {self.folder}: it is no folder")
        if not os.path.lexists(self._last):
            raise ModelError(f"there is no checkpoint in {self.folder}: it has no {LAST}")

    def _read(self) -> int:
        """Take the state from the folder; return after how many epochs it is written."""
        self._seek()
        self.network, self._state, self.settings, every = state_file.read(self._last)
        return every

    def _compare(self, stored: Network, network: Network, now: Mapping[str, Any]) -> None:
        """Say in what the training in the folder differs from the one that is to go on."""
        before = self.settings
        sets, sets_before = now["sets"], before["sets"]
        for key, name in (("train", "training"), ("validation", "validation"), ("test", "test")):
            if sets.get(key) != sets_before.get(key):
                raise DataError(
                    f"the {name} set is not the one that the training in {self.folder} began with"
                )
        names = [name for name in now if name not in {"sets", *FREE}]
        check_same(
            f"the training in {self.folder}",
            {**_shape(stored), **{name: before.get(name) for name in names}},
            {**_shape(network), **{name: now[name] for name in names}},
        )


def _shape(network: Network) -> dict[str, Any]:
    """Return what must not change of a network between two parts of a training."""
    return plain(
        {
            "sizes": network.sizes,
            "activations": network.activations,
            "cost": network.cost,
            "init": network.init,
            "dtype": str(network.backend.dtype),
        }
    )


T = TypeVar("T")


class _Beside(Generic[T]):
    """Work that a thread of its own does; what it returned or raised is had from :meth:`result`."""

    def __init__(self, work: Callable[..., T], *arguments: Any) -> None:
        self._returned, self._raised = list[T](), list[BaseException]()
        self._thread = Thread(target=self._do, args=(work, *arguments), name="fastnn-checkpoint")
        try:
            self._thread.start()
        except RuntimeError:  # Python 3.12 starts none when the main program has ended
            self._do(work, *arguments)

    def _do(self, work: Callable[..., T], *arguments: Any) -> None:
        try:
            self._returned.append(work(*arguments))
        except BaseException as error:
            self._raised.append(error)

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> T:
        if not self.done:
            self._thread.join()
        for error in self._raised:
            raise error
        (returned,) = self._returned
        return returned


def _told(sets: Mapping[str, Dataset], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that a training is told, as it will be when it is read."""
    samples = {key: (len(data), data.sha256) for key, data in sets.items()}
    return plain({"sets": samples, **settings})
