"""Where downloaded data are kept."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the folder for downloaded data; it need not exist yet.

    It is ``data`` in the folder that the environment variable ``FASTNN_CACHE_DIR`` names, else in
    the user's cache folder of the operating system.
    """
    named = os.environ.get("FASTNN_CACHE_DIR")
    if named:
        return Path(named) / "data"
    import platformdirs

    return Path(platformdirs.user_cache_dir("fastnn", appauthor=False)) / "data"
