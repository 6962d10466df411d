"""The trials of a search, kept by Optuna in memory or in a file of SQLite's.

Each trial is drawn with a seed of its own, made of the search's and of how many are done, and by
those that are done alone: a search that was killed and goes on comes to the same trials.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from fastnn.errors import ArgumentError, FastnnError, ModelError, OutputError
from fastnn.outputs import alone, cannot_write, check_output, clear_remains, replace

__all__ = ["DIVERGED", "Asked", "Study"]

NAME = "fastnn"  # of the study in its file, and of what is kept with it
DIVERGED = "diverged"
HEAD = b"SQLite format 3\0"
WAIT = 30  # seconds for another program, such as a viewer, that reads the file

# The median of fewer says little, and so does what an epoch or two have come to.
FIRST_TRIALS, FIRST_EPOCHS = 4, 3

# What SQLite answers where a file cannot be written; anything else is said of the file's content.
UNWRITABLE = {
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM),
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN),
}


class Study:
    """What was tried, what is to be tried next, and what need not be tried to its end.

    A context: its file is no other process's until it is left.

    Parameters
    ----------
    path
        A file, which need not exist; None keeps all in memory.

    Attributes
    ----------
    about
        What :meth:`begin` was told, as JSON has it; None before.

    Raises
    ------
    ArgumentError
        If Optuna is not installed, or the path is no name.
    OutputError
        If the file cannot be written, is something else, or is in use by another process.
    ModelError
        If it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        try:
            import optuna
        except ImportError as error:
            raise ArgumentError(
                "the search needs Optuna, which the extra 'tune' brings: "
                f"pip install -e '.[tune]'  ({error})"
            ) from None
        if path is not None and (not isinstance(path, str | os.PathLike) or not os.fspath(path)):
            raise ArgumentError(f"a study's file must have a name, not {path!r}")
        self.about: dict[str, Any] | None = None
        self._optuna, self._states = optuna, optuna.trial.TrialState
        self._pruner = optuna.pruners.MedianPruner(FIRST_TRIALS, FIRST_EPOCHS)
        self._path: Path | None = None
        self.name = "memory" if path is None else os.fspath(path)  # as it was given
        with ExitStack() as stack:
            # What it has to say is said here.
            log = logging.getLogger("optuna")
            stack.callback(log.setLevel, log.level)
            log.setLevel(logging.CRITICAL)
            if path is not None:
                self._path = file = check_output(path, "a study of ours", _is_sqlite)
                busy = f"cannot write {self.name}: another process is at work on that study"
                stack.enter_context(alone(file, busy))
                clear_remains(file)
                if file.exists() and file.stat().st_size:
                    self._check(file)
                    self._open(file, stack)
                else:
                    self._check_alone(file)
            self._stack = stack.pop_all()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def begin(self, about: Mapping[str, Any]) -> None:
        """Begin it, and keep with it what it is about. Its file is there as a whole or not."""
        if self._path is None:
            self._create(self._optuna.storages.InMemoryStorage(), about)
            return
        with tempfile.TemporaryDirectory() as folder, self.telling():
            fresh = Path(folder) / "study"
            with ExitStack() as stack:
                self._create(self._storage(fresh, stack), about)
            content = fresh.read_bytes()
        replace(self._path, content)
        self._open(self._path, self._stack)

    def done(self) -> list[Any]:
        """Return the trials that are done, as Optuna has them, in their order."""
        with self.telling():
            return self._study.get_trials(
                deepcopy=False, states=(self._states.COMPLETE, self._states.PRUNED)
            )

    def ask(self, seed: int, start: Mapping[str, Any]) -> Asked:
        """Return the next trial, which is to draw. What the first one draws is the start."""
        done = len(self.done())
        own = np.random.SeedSequence([seed, done]).generate_state(1)
        with self.telling():
            self._study.sampler = self._optuna.samplers.TPESampler(seed=int(own[0]))
            waiting = self._study.get_trials(deepcopy=False, states=(self._states.WAITING,))
            if not done and not waiting:
                self._study.enqueue_trial(dict(start))
            return Asked(self, self._study.ask())

    def tell(self, trial: Any, how: str, accuracy: float | None) -> None:
        """Keep how a trial ended: "finished", "pruned", "diverged", or "ended", and not counted."""
        states = {"finished": self._states.COMPLETE, "ended": self._states.FAIL}
        with self.telling():
            if how == DIVERGED:
                trial.set_user_attr(DIVERGED, True)
            self._study.tell(
                trial,
                accuracy if how == "finished" else None,
                state=states.get(how, self._states.PRUNED),
            )

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Say in a sentence what is wrong with the file, whatever Optuna makes of it."""
        try:
            yield
        except FastnnError:
            raise
        except Exception as error:
            if self._path is None:
                raise
            raise _explained(self.name, error) from error

    def _check(self, path: Path) -> None:
        """Refuse what is damaged, or another's, before Optuna writes into it."""
        with self.telling(), closing(_connect(path)) as connection:
            (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if sound != "ok":
                raise ModelError(f"{self.name} is damaged: {sound}")
            names: list[tuple[str]] = []
            with suppress(sqlite3.OperationalError):  # it has no such table
                names = connection.execute("SELECT study_name FROM studies").fetchall()
        if names != [(NAME,)]:
            raise OutputError(
                f"cannot write {self.name}: it holds something other than a study of ours; "
                "move it away or choose another name"
            )

    def _check_alone(self, path: Path) -> None:
        """Refuse a new file that SQLite would fill from the journal of one that is gone."""
        for journal in (f"{path}-journal", f"{path}-wal"):
            if os.path.lexists(journal):
                raise OutputError(
                    f"cannot write {self.name}: {journal} is left of a file that is gone; "
                    "move it away or choose another name"
                )

    def _open(self, path: Path, stack: ExitStack) -> None:
        with self.telling():
            storage = self._storage(path, stack)
            self._study = self._optuna.load_study(
                study_name=NAME, storage=storage, pruner=self._pruner
            )
            self.about = self._study.user_attrs[NAME]
            for left in self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,)):
                self._study.tell(left.number, state=self._states.FAIL)  # by one that was killed

    def _create(self, storage: Any, about: Mapping[str, Any]) -> None:
        self._study = self._optuna.create_study(
            storage=storage, study_name=NAME, direction="maximize", pruner=self._pruner
        )
        self._study.set_user_attr(NAME, dict(about))
        self.about = self._study.user_attrs[NAME]

    def _storage(self, path: Path, stack: ExitStack) -> Any:
        # By a connection of our own, since no URL stands for each path.
        storage = self._optuna.storages.RDBStorage(
            "sqlite:///study", engine_kwargs={"creator": lambda: _connect(path)}
        )
        stack.callback(storage.engine.dispose)
        return storage


class Asked:
    """A trial that is under way."""

    def __init__(self, study: Study, trial: Any) -> None:
        self._study, self._trial = study, trial

    def among(self, name: str, choices: Sequence[int]) -> Any:
        """Draw one of these."""
        with self._study.telling():
            return self._trial.suggest_categorical(name, choices)

    def between(self, name: str, low: float, high: float) -> float:
        """Draw a number, whose logarithm is as likely anywhere between."""
        with self._study.telling():
            return float(self._trial.suggest_float(name, low, high, log=True))

    def report(self, accuracy: float, epoch: int) -> bool:
        """Keep what an epoch came to; return whether others were better by then."""
        with self._study.telling():
            self._trial.report(accuracy, epoch)
            return bool(self._trial.should_prune())

    def end(self, how: str, accuracy: float | None = None) -> None:
        """See :meth:`Study.tell`."""
        self._study.tell(self._trial, how, accuracy)


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(HEAD)) == HEAD


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=WAIT, check_same_thread=False)


def _explained(name: str, error: Exception) -> FastnnError:
    """Return the error that says whether a file cannot be written, or makes no sense."""
    cause: BaseException | None = error
    while cause is not None:
        original = getattr(cause, "orig", cause)  # SQLAlchemy's have SQLite's
        if isinstance(original, sqlite3.Error):
            code = getattr(original, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code in UNWRITABLE:
                return OutputError(f"cannot write {name}: {original}")
            return ModelError(f"{name} is damaged: {original}")
        if isinstance(original, OSError):
            return cannot_write(name, original)
        cause = cause.__cause__ or cause.__context__
    reason = str(error).partition("\n")[0] or type(error).__name__
    return ModelError(f"{name} is damaged, or of another version of Optuna: {reason}")
