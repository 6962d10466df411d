"""MNIST, downloaded once from the first mirror that gives the right bytes."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from fastnn.cache import cache_folder
from fastnn.data.dataset import Datasets
from fastnn.data.download import DownloadProgress, Undelivered, download, root_cause
from fastnn.data.idx import read_folder
from fastnn.data.npz import read_npz
from fastnn.errors import DataError

__all__ = ["fetch_mnist", "is_cached", "load_mnist"]

# Folders on the web that hold the four files, whose sha256 follow.
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}

# The same images in one file, for when no mirror has all four.
ARCHIVE_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
ARCHIVE_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"


def load_mnist(on_progress: DownloadProgress | None = None) -> Datasets:
    """Return MNIST, 60,000 images to train on and 10,000 to test on, as `fetch_mnist` gets it."""
    path = fetch_mnist(on_progress)
    return replace(read_folder(path) if path.is_dir() else read_npz(path), name="mnist")


def is_cached() -> bool:
    """Return whether MNIST has been fetched and its files are intact."""
    return _cached(_folder()) is not None


def fetch_mnist(on_progress: DownloadProgress | None = None) -> Path:
    """Download what the cache lacks of MNIST and return where it is.

    A file is downloaded to a temporary name and renamed when its sha256 is right, so what has its
    name in the cache is whole, also while several processes fetch at once.

    Parameters
    ----------
    on_progress : callable, optional
        Called as ``on_progress(file_name, received_bytes, total_bytes_or_None)`` meanwhile.

    Returns
    -------
    Path
        The folder of the four files, or the .npz that was fetched in their stead.

    Raises
    ------
    DataError
        The cache cannot be written, or no mirror delivers: the message gives the cause of each.
    """
    folder = _folder()
    if (path := _cached(folder)) is not None:
        return path
    failures: list[str] = []
    retrieve = partial(_retrieve, folder, on_progress, failures)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _retrieve_files(retrieve):
            return folder
        if retrieve(ARCHIVE_URL, ARCHIVE_SHA256):
            return folder / _file_name(ARCHIVE_URL)
    except OSError as error:
        raise DataError(
            f"{folder}: the cache cannot be written: {root_cause(error)}; "
            "name another folder in FASTNN_CACHE_DIR"
        ) from error
    raise DataError(
        "MNIST could not be downloaded:\n"
        + "\n".join(failures)
        + "\n  If you have its IDX files or .npz, give their path: --data PATH, load_dataset(PATH)."
    )


def _folder() -> Path:
    return cache_folder("data") / "mnist"


def _file_name(url: str) -> str:
    return url.rpartition("/")[2]


def _cached(folder: Path) -> Path | None:
    """Return what is whole in the cache: the folder of the four files, the .npz, or neither."""
    if all(_intact(folder / name, sha256) for name, sha256 in FILES.items()):
        return folder
    archive = folder / _file_name(ARCHIVE_URL)
    return archive if _intact(archive, ARCHIVE_SHA256) else None


def _intact(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _retrieve_files(retrieve: Callable[[str, str], bool]) -> bool:
    """Retrieve the four files, each from any mirror; begin with the one that gave the last."""
    mirrors = deque(MIRRORS)
    for name, sha256 in FILES.items():
        for _ in MIRRORS:
            if retrieve(mirrors[0] + name, sha256):
                break
            mirrors.rotate(-1)
        else:
            return False
    return True


def _retrieve(
    folder: Path, on_progress: DownloadProgress | None, failures: list[str], url: str, sha256: str
) -> bool:
    """Retrieve a file, unless it is in `folder` already; if that fails, add why to `failures`."""
    import pooch

    try:
        with _silenced(pooch.get_logger()):
            pooch.retrieve(
                url,
                known_hash=f"sha256:{sha256}",
                fname=_file_name(url),
                path=folder,
                downloader=lambda url, path, _: download(url, path, on_progress),
            )
        return True
    except Undelivered as error:
        failures.append(f"  {url}: {error}")
    except ValueError:  # how pooch says that the hash differs
        failures.append(f"  {url}: wrong contents (their sha256 is not the published one)")
    return False


@contextmanager
def _silenced(logger: logging.Logger) -> Iterator[None]:
    """Keep what `logger` has to tell from the user's terminal."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
