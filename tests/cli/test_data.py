"""``fastnn data list | fetch | path``, and MNIST through the command."""

import functools
import gzip
import hashlib
import http.server
import os
import struct
import threading

import numpy as np
import pytest

from fastnn.data import mnist


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTNN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def idx(array):
    array = np.asarray(array, np.uint8)
    lengths = struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes(), mtime=0)


@pytest.fixture
def mirror(tmp_path, monkeypatch, arrays):
    """Serve MNIST in small on loopback; give what closes the server."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name, (part, axes) in zip(
        mnist.FILES,
        [("x_train", (-1, 4, 4)), ("y_train", (-1,)), ("x_test", (-1, 4, 4)), ("y_test", (-1,))],
        strict=True,
    ):
        (folder / name).write_bytes(idx(arrays[part].reshape(axes)))
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(mnist, "MIRRORS", (url,))
    monkeypatch.setattr(mnist, "FILES", {name: sums[name] for name in mnist.FILES})
    monkeypatch.setattr(mnist, "ARCHIVE_URL", url + "mnist.npz")

    def close():  # can be called twice
        server.shutdown()
        thread.join()
        server.server_close()

    yield close
    close()


def state(run, name):
    rows = [line.split("  ") for line in run("data", "list").out.splitlines()]
    (found,) = [[part.strip() for part in row if part] for row in rows if row[0].strip() == name]
    return found[1]


def test_path_is_that_of_the_cache(run, cache):
    assert run("data", "path").out == f"{cache}\n"
    assert not cache.exists()


def test_list_names_the_data_sets_and_says_which_are_here(run):
    result = run("data", "list")
    assert [line.split()[0] for line in result.out.splitlines()] == ["digits", "mnist", "synthetic"]
    assert state(run, "digits") == "here"
    assert state(run, "mnist") == "not downloaded"
    report = run("data", "list", "--json").json
    assert (report["schema"], report["command"]) == (1, "data list")
    assert [(row["name"], row["here"]) for row in report["data"]] == [
        ("digits", True),
        ("mnist", False),
        ("synthetic", True),
    ]


def test_fetch_downloads_once_and_prints_where(run, mirror, cache):
    result = run("data", "fetch")
    assert (result.code, result.out) == (0, f"{cache / 'mnist'}\n")
    assert result.err.count("downloading ") == 4
    assert not set(result.err) & {"\x1b", "\r"}
    assert sorted(os.listdir(cache / "mnist")) == sorted(mnist.FILES)
    mirror()
    again = run("data", "fetch", "mnist")
    assert (again.code, again.out, again.err) == (0, result.out, "")
    assert state(run, "mnist") == "here"


@pytest.mark.usefixtures("mirror")
def test_fetch_is_quiet_if_told(run):
    result = run("data", "fetch", "-q")
    assert (result.code, result.err) == (0, "")


@pytest.mark.usefixtures("mirror")
def test_train_downloads_mnist_and_evaluate_finds_it(run):
    result = run("train", "--data", "mnist", "--epochs", 1, "--json")
    assert result.code == 0
    assert result.err.count("downloading ") == 4
    assert "fastnn train --data mnist" not in result.err
    assert result.json["data"]["name"] == "mnist"
    assert result.json["data"]["train"] == 63
    assert result.json["model"] == "fastnn-mnist.safetensors"
    evaluated = run("evaluate", "fastnn-mnist.safetensors", "--json")
    assert evaluated.err == ""
    assert evaluated.json["accuracy"] == result.json["epochs"][-1]["test_accuracy"]


@pytest.mark.parametrize("command", ["data fetch", "train --data mnist"])
def test_without_a_connection_it_says_what_was_tried(refused, mirror, tmp_path, command):
    mirror()
    says = ["MNIST could not be downloaded", mnist.MIRRORS[0], mnist.ARCHIVE_URL, "--data PATH"]
    result = refused(4, says, *command.split())
    assert result.err.count("Connection refused") == 2
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_cache_that_cannot_be_written(refused, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTNN_CACHE_DIR", str(tmp_path / "file"))
    refused(4, "FASTNN_CACHE_DIR", "data", "fetch")


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_what_needs_no_download_is_not_fetched(refused, name):
    refused(2, name, "data", "fetch", name)
