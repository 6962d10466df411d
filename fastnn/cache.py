"""Where is kept what can be had again: downloaded data, compiled code."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


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
