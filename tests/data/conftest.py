"""Files written from the definition of their format, and a server that misbehaves as it is told."""

import contextlib
import gzip
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest


def encode_idx(array):
    """The bytes of an IDX file: 0, 0, type 8, axes; big-endian lengths; the elements."""
    array = np.asarray(array, np.uint8)
    lengths = b"".join(struct.pack(">I", length) for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


@pytest.fixture(scope="session")
def as_idx():
    return encode_idx


@pytest.fixture(scope="session")
def arrays():
    """x_train, y_train, x_test, y_test: tiny images of 5 × 4 pixels in three classes."""
    rng = np.random.default_rng(1)
    return {
        "x_train": rng.integers(256, size=(12, 5, 4), dtype=np.uint8),
        "y_train": np.arange(12, dtype=np.uint8) % 3,
        "x_test": rng.integers(256, size=(6, 5, 4), dtype=np.uint8),
        "y_test": np.arange(6, dtype=np.uint8) % 3,
    }


@pytest.fixture(scope="session")
def idx_files(arrays):
    """The names and the uncompressed contents of the four files."""
    return {
        "train-images-idx3-ubyte": encode_idx(arrays["x_train"]),
        "train-labels-idx1-ubyte": encode_idx(arrays["y_train"]),
        "t10k-images-idx3-ubyte": encode_idx(arrays["x_test"]),
        "t10k-labels-idx1-ubyte": encode_idx(arrays["y_test"]),
    }


@pytest.fixture(scope="session")
def gz_files(idx_files):
    return {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in idx_files.items()}


@pytest.fixture
def idx_folder(tmp_path, idx_files):
    folder = tmp_path / "digits of mine"
    folder.mkdir()
    for name, data in idx_files.items():
        (folder / name).write_bytes(data)
    return folder


class Server(ThreadingHTTPServer):
    """Answers on loopback as `answers` says: by path, a function of the handler."""

    daemon_threads = False  # so that closing waits for the answers and no socket is left open

    def __init__(self):
        self.answers = {}
        self.asked = []
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path, Handler.missing)
        with contextlib.suppress(ConnectionError):  # the client gave up, as it should
            answer(self)

    def missing(self):
        self.send_error(404)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()
