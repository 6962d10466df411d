"""Files that a user asks for: what cannot be written is refused before the work, in a sentence."""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fastnn.errors import OutputError

__all__ = ["alone", "append", "beside", "cannot_write", "check_output", "clear_remains", "replace"]

PathLike = str | os.PathLike[str]

LONGEST = 40  # characters of a file's name that are part of another's, up to four bytes each


def check_output(path: PathLike, what: str, is_ours: Callable[[Path], bool]) -> Path:
    """Return the file that a path stands for, its links followed, or say why it cannot be written.

    Meant to be asked before the work whose result is to be written.

    Parameters
    ----------
    path
        Where a file is to be, or is.
    what
        Of what kind it is to be, "a trace".
    is_ours
        Whether a file that is there is of that kind. It is not asked of an empty one.

    Raises
    ------
    OutputError
        If the folder does not exist or cannot be written to; if something of another kind is there.
    """
    try:
        target = Path(os.path.realpath(path))
        try:
            there = os.lstat(target)
        except FileNotFoundError:
            there = None
        if there is None and str(path).endswith(os.sep):
            raise OutputError(f"cannot write {path}: that is the name of a folder")
        if there and not stat.S_ISREG(there.st_mode):
            kind = "a folder" if stat.S_ISDIR(there.st_mode) else "not an ordinary file"
            raise OutputError(f"cannot write {path}: it is {kind}")
        if there and there.st_size and not is_ours(target):
            raise OutputError(
                f"cannot write {path}: it holds something other than {what}; "
                "move it away or choose another name"
            )
        if there and not os.access(target, os.W_OK):
            raise OutputError(f"cannot write {path}: it is write-protected")
        with tempfile.TemporaryFile(dir=target.parent):
            return target
    except OutputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise cannot_write(path, error) from error


@contextmanager
def alone(path: Path, busy: str, *, needed: bool = True) -> Iterator[None]:
    """Let nobody else, in another process or thread, begin with a file until the end of the block.

    Parameters
    ----------
    path
        The file, which may be missing. One beside it is locked, and removed in the end.
    busy
        What is said if somebody else is at work on it.
    needed
        Whether it is an error if nothing can be locked there, as on some network drives.

    Raises
    ------
    OutputError
        If somebody else is at work on it, or it cannot be locked and has to be.
    """
    # By a name that is ours alone, since what is there is emptied.
    lock = path.with_name(f"{beside(path)}lock")
    with ExitStack() as stack:
        try:
            from filelock import FileLock

            # What would be had in place of a lock stays when the process is killed.
            stack.enter_context(FileLock(lock, timeout=0, fallback_to_soft=False))
            stack.callback(_remove, lock)
        except TimeoutError:
            raise OutputError(busy) from None
        except (OSError, RuntimeError) as error:  # the latter if the main program has ended
            if needed:
                raise cannot_write(lock, error) from error
        yield


def append(path: Path, content: bytes, head: bytes) -> None:
    """Add to a file's end all of the content or nothing; to an empty or new file, the head before.

    When it returns, the system has the content: it stays if the process is killed.

    Raises
    ------
    OutputError
        If that cannot be.
    """
    try:
        with path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            whole = content if end else head + content
            left = memoryview(whole)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:  # a disk may have room for a part, and another process may have added
                if file.seek(0, os.SEEK_END) == end + len(whole) - len(left):
                    file.truncate(end)
                raise
    except OSError as error:
        raise cannot_write(path, error) from error


def replace(path: Path, content: bytes) -> None:
    """Put the content in a file's place at once.

    It is written beside it, flushed to the disk and renamed: at any moment, also after a power cut,
    there is the old file or the new one, never half of one.

    Raises
    ------
    OutputError
        If that cannot be; the old file is then as it was.
    """
    fresh = path.with_name(f"{beside(path)}{secrets.token_hex(8)}.tmp")
    try:
        try:
            with fresh.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                shutil.copymode(path, fresh)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    with suppress(OSError):  # of a system that opens no folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def clear_remains(path: Path) -> None:
    """Remove what processes left beside a file that were killed while they replaced it."""
    for left in path.parent.glob(f"{glob.escape(beside(path))}{'[0-9a-f]' * 16}.tmp"):
        with suppress(OSError):
            left.unlink()


def beside(path: Path) -> str:
    """Return how the names begin of what is beside a file for its sake, for a while."""
    name = path.name
    if len(name) > LONGEST:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()
        name = f"{name[: LONGEST - 9]}-{digest[:8]}"
    return f".fastnn-{name}-"


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def cannot_write(path: PathLike, error: Exception) -> OutputError:
    """Return the error that names the path and says why."""
    reason = error.strerror if isinstance(error, OSError) else None
    return OutputError(f"cannot write {path}: {reason or error}")
