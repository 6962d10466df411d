"""A training's epochs for TensorBoard, through tensorboardX, which writes the format's messages.

Its writers work in a thread, where a full disk is noticed by no one; here a record is in the file
when the call returns.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

from fastnn.errors import ArgumentError, OutputError
from fastnn.history import Epoch
from fastnn.outputs import append, cannot_write

__all__ = ["TensorBoard"]


class TensorBoard:
    """A file of events that TensorBoard shows; give one to :func:`fastnn.train`.

    >>> history = fastnn.train(network, train_set, on_epoch=fastnn.TensorBoard("runs/first"))

    Called with an :class:`fastnn.Epoch` it adds, under the epoch's number, ``cost/train`` and
    ``accuracy/train``, the same of the validation and the test set if they were given, and
    ``samples_per_second``.

    Parameters
    ----------
    folder
        A folder for this training, which is made with the first epoch. The file in it has a name
        of its own: what is there stays, and TensorBoard shows it as the same run.

    Raises
    ------
    ArgumentError
        If tensorboardX, of the extra ``tensorboard``, is not installed or cannot be loaded.
    OutputError
        If the folder cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.proto.summary_pb2 import Summary
            from tensorboardX.record_writer import masked_crc32c
        except Exception as error:  # ImportError, or what protobuf raises of another version
            raise ArgumentError(
                "files for TensorBoard need tensorboardX, which the extra 'tensorboard' brings: "
                f"pip install -e '.[tensorboard]'  ({error})"
            ) from None
        self._event, self._summary, self._checksum = Event, Summary, masked_crc32c
        # TensorBoard reads a folder's files in the order of their names, by the second.
        own = f"{time.time():.0f}.{socket.gethostname()}.{secrets.token_hex(4)}"
        self._path = _checked(folder) / f"events.out.tfevents.{own}"

    def __call__(self, epoch: Epoch) -> None:
        """Add an epoch.

        Raises
        ------
        OutputError
            If the file cannot be written, as where the disk is full.
        """
        values = {"samples_per_second": epoch.samples_per_second}
        for name in ("train", "validation", "test"):
            for what in ("cost", "accuracy"):
                if (value := getattr(epoch, f"{name}_{what}")) is not None:
                    values[f"{what}/{name}"] = value
        summary = self._summary(
            value=[
                self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()
            ]
        )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self._path.parent, error) from error
        append(
            self._path,
            self._record(step=epoch.epoch, summary=summary),
            head=self._record(file_version="brain.Event:2"),
        )

    def _record(self, **content: Any) -> bytes:
        """An event as the file has it: its length and itself, each with a checksum behind."""
        event = self._event(wall_time=time.time(), **content).SerializeToString()
        length = struct.pack("<Q", len(event))
        return b"".join(
            [
                length,
                struct.pack("<I", self._checksum(length)),
                event,
                struct.pack("<I", self._checksum(event)),
            ]
        )


def _checked(folder: str | os.PathLike[str]) -> Path:
    """Return a folder, its links followed, that can be written to, or be made."""
    try:
        target = Path(os.path.realpath(folder))
        there = next(path for path in (target, *target.parents) if path.exists())
        if not there.is_dir():
            raise OutputError(f"cannot write to {folder}: {there} is not a folder")
        with tempfile.TemporaryFile(dir=there):
            return target
    except OutputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise cannot_write(folder, error) from error
