"""Where is kept what can be had again: downloaded data, compiled code."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["cache_folder", "write_whole"]


def cache_folder(name: str) -> Path:
    """Return the folder of that name in the cache; it need not exist yet.

    The cache is the folder that the environment variable ``FASTNN_CACHE_DIR`` names, else the
    user's cache folder of the operating system.
    """
    named = os.environ.get("FASTNN_CACHE_DIR")
    if named:
        return Path(named) / name
    import platformdirs

    return Path(platformdirs.user_cache_dir("fastnn", appauthor=False)) / name


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, and its folder, such that no one ever sees a part of it.

    Raises
    ------
    OSError
        If that cannot be; nothing is left behind then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / path.name
        whole.write_bytes(content)
        os.replace(whole, path)
