"""An HTTP download with bounded patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

__all__ = ["DownloadProgress", "Undelivered", "download", "root_cause"]

# Called with the name of a file, the bytes received, and the bytes expected where that is known.
DownloadProgress = Callable[[str, int, int | None], None]

PATIENCE = 20.0  # seconds for a connection, for an answer, and for each _STRIDE of the body
_STRIDE = 1 << 17  # bytes
_CHUNK = 1 << 16  # bytes
_LARGEST = 1 << 26  # bytes; no file that is fetched is nearly as large


class Undelivered(Exception):
    """A server did not deliver; the message says why."""


def download(url: str, path: str, on_progress: DownloadProgress | None = None) -> None:
    """Write the body of the answer to ``GET url`` to the file `path`.

    Redirections are not followed: a portal's log-in page is no data.

    Raises
    ------
    Undelivered
        The server refuses, fails, breaks off, stalls, trickles or floods.
    OSError
        The file cannot be written.
    """
    received = 0
    with open(path, "wb") as file:
        for chunk, expected in _body(url):
            file.write(chunk)
            received += len(chunk)
            if on_progress is not None:
                on_progress(url.rpartition("/")[2], received, expected)


def _body(url: str) -> Iterator[tuple[bytes, int | None]]:
    """Yield the body in pieces as they arrive, each with the length of the whole if announced."""
    import requests
    import urllib3

    try:
        with requests.get(
            url,
            stream=True,
            timeout=PATIENCE,
            allow_redirects=False,
            headers={"Accept-Encoding": "identity"},
        ) as response:
            if response.status_code != requests.codes.ok:
                raise Undelivered(f"HTTP status {response.status_code}")
            expected = response.raw.length_remaining
            response.raw.enforce_content_length = False  # a body that is short is told of below
            received, due, deadline = 0, _STRIDE, time.monotonic() + PATIENCE
            # read1 returns what has arrived; a plain read would wait for a full chunk and so give
            # a server that trickles no chance to be caught.
            while chunk := response.raw.read1(_CHUNK, decode_content=False):
                received += len(chunk)
                if received > _LARGEST:
                    raise Undelivered("sends without end")
                if received >= due:
                    due, deadline = received + _STRIDE, time.monotonic() + PATIENCE
                elif time.monotonic() > deadline:
                    raise Undelivered("too slow")
                yield chunk, expected
            if expected is not None and received < expected:
                raise Undelivered(f"broke off after {received:,} of {expected:,} bytes")
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        raise Undelivered(root_cause(error)) from error


def root_cause(error: BaseException) -> str:
    """Return what the layers around an OSError wrap: 'Connection refused'."""
    while not (isinstance(error, OSError) and error.strerror):
        if isinstance(error, TimeoutError):
            return "timed out"
        inner = error.__cause__ or error.__context__
        if inner is None:
            # It may quote the server, which is not to write on the user's terminal as it likes.
            return f"{type(error).__name__}: {str(error)[:200]!r}"
        error = inner
    return error.strerror
