import hashlib
import io
import socket
import subprocess
import sys
import threading
import time
from importlib import import_module

import numpy as np
import pytest

from fastnn.cache import cache_folder
from fastnn.data import download, fetch_mnist, is_cached, load_dataset, mnist
from fastnn.errors import DataError

LITTLE_PATIENCE = 0.4  # seconds


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def gives(data, announced=None):
    """Answer 200 with a body, and say that it has `announced` bytes."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data) if announced is None else announced))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def trickles(data):
    """Answer with a byte at a time, each well before a time-out of the socket."""

    def answer(handler):
        gives(data[:1], announced=len(data))(handler)
        for place in range(1, len(data)):
            if handler.server.closing.wait(LITTLE_PATIENCE / 10):
                break
            handler.wfile.write(data[place : place + 1])

    return answer


def stalls(data):
    """Answer with half of the body and then with silence."""

    def answer(handler):
        gives(data[: len(data) // 2], announced=len(data))(handler)
        handler.server.closing.wait()

    return answer


def is_silent(data):
    return lambda handler: handler.server.closing.wait()


def floods(data):
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.closing.is_set():
            handler.wfile.write(bytes(1 << 16))

    return answer


def redirects(data):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", "/portal")
        handler.end_headers()

    return answer


MISBEHAVIOUR = [
    (lambda data: gives(b"wrong" + data[5:]), "wrong contents"),
    (lambda data: gives(b""), "wrong contents"),
    (lambda data: gives(data[:-1]), "wrong contents"),
    (lambda data: gives(data[:-3], announced=len(data)), "broke off after"),
    (lambda data: lambda handler: handler.send_error(404), "HTTP status 404"),
    (lambda data: lambda handler: handler.send_error(503), "HTTP status 503"),
    (lambda data: lambda handler: handler.wfile.write(b"\x1b[31mno\r\n"), r"\x1b[31mno\r\n"),
    (lambda data: lambda handler: None, "closed connection"),
    (redirects, "HTTP status 302"),
    (floods, "without end"),
    (is_silent, ": timed out"),
    (stalls, ": timed out"),
    (trickles, "too slow"),
]


def lose_patience(monkeypatch, misbehaves):
    """Lower the patience where it takes all of it to notice."""
    if misbehaves in (is_silent, stalls, trickles):
        monkeypatch.setattr(download, "PATIENCE", LITTLE_PATIENCE)


@pytest.fixture
def archive(arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@pytest.fixture
def mirrors(monkeypatch, tmp_path, server, gz_files, archive):
    """Two mirrors and the archive on the server, all good, and an empty cache."""
    import_module("pooch")  # whoever lacks it is told here, not by what a thread leaves undone
    monkeypatch.setenv("FASTNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "_LARGEST", 1 << 20)
    monkeypatch.setattr(mnist, "MIRRORS", (server.url + "one/", server.url + "two/"))
    monkeypatch.setattr(mnist, "FILES", {name: sha256(data) for name, data in gz_files.items()})
    monkeypatch.setattr(mnist, "ARCHIVE_URL", server.url + "three/mnist.npz")
    monkeypatch.setattr(mnist, "ARCHIVE_SHA256", sha256(archive))
    for name, data in gz_files.items():
        server.answers[f"/one/{name}"] = server.answers[f"/two/{name}"] = gives(data)
    server.answers["/three/mnist.npz"] = gives(archive)
    return server


@pytest.fixture
def cache(mirrors):
    return cache_folder("data") / "mnist"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_published_sums_are_sha256():
    assert all(len(bytes.fromhex(digest)) == 32 for digest in mnist.FILES.values())
    assert all(url.startswith("https://") for url in (*mnist.MIRRORS, mnist.ARCHIVE_URL))


def test_it_is_fetched_once(mirrors, cache, gz_files, arrays):
    assert not is_cached()
    assert not cache.exists()  # to look does not make it
    datasets = load_dataset("mnist")
    assert datasets.name == "mnist"
    np.testing.assert_array_equal(datasets.train.x, arrays["x_train"].reshape(12, 20))
    assert mirrors.asked == [f"/one/{name}" for name in gz_files]
    assert names_in(cache) == sorted(gz_files)
    assert is_cached()
    assert fetch_mnist() == cache
    assert load_dataset("mnist").sha256 == datasets.sha256
    assert len(mirrors.asked) == 4


def test_progress(mirrors, gz_files):
    told = []
    fetch_mnist(on_progress=lambda *what: told.append(what))
    last = {name: (received, total) for name, received, total in told}
    assert last == {name: (len(data), len(data)) for name, data in gz_files.items()}


def test_progress_without_a_length(mirrors, gz_files):
    name, data = next(iter(gz_files.items()))

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(data)

    mirrors.answers[f"/one/{name}"] = answer
    told = []
    fetch_mnist(on_progress=lambda *what: told.append(what))
    assert (name, len(data), None) in told


def test_a_callback_may_stop_it(mirrors, cache):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_mnist(on_progress=interrupt)
    assert names_in(cache) == []


def test_a_chunked_body(mirrors, gz_files):
    name, data = next(iter(gz_files.items()))

    def answer(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for place in range(0, len(data), 100):
            chunk = data[place : place + 100]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    mirrors.answers[f"/one/{name}"] = answer
    fetch_mnist()
    assert f"/two/{name}" not in mirrors.asked


@pytest.mark.parametrize(("misbehaves", "_"), MISBEHAVIOUR)
def test_the_second_mirror_steps_in(mirrors, cache, gz_files, monkeypatch, misbehaves, _):
    lose_patience(monkeypatch, misbehaves)
    first, second, *others = gz_files
    mirrors.answers[f"/one/{second}"] = misbehaves(gz_files[second])
    began = time.monotonic()
    assert fetch_mnist() == cache
    assert time.monotonic() - began < 10
    # The mirror that failed is not asked for the rest.
    expected = [f"/one/{first}", f"/one/{second}"]
    assert mirrors.asked == expected + [f"/two/{name}" for name in (second, *others)]
    assert names_in(cache) == sorted(gz_files)


def test_a_mirror_that_failed_once_may_still_have_what_the_other_lacks(mirrors, cache, gz_files):
    first, second, *_ = gz_files
    del mirrors.answers[f"/one/{first}"], mirrors.answers[f"/two/{second}"]
    assert fetch_mnist() == cache
    assert names_in(cache) == sorted(gz_files)


def test_the_archive_steps_in(mirrors, cache, gz_files, arrays):
    _, second, *_ = gz_files
    del mirrors.answers[f"/one/{second}"], mirrors.answers[f"/two/{second}"]
    assert fetch_mnist() == cache / "mnist.npz"
    assert is_cached()
    asked = len(mirrors.asked)
    datasets = load_dataset("mnist")
    assert len(mirrors.asked) == asked
    assert datasets.name == "mnist"
    np.testing.assert_array_equal(datasets.test.labels, arrays["y_test"])


@pytest.mark.parametrize(("misbehaves", "cause"), MISBEHAVIOUR)
def test_all_bad(mirrors, cache, gz_files, archive, monkeypatch, misbehaves, cause):
    lose_patience(monkeypatch, misbehaves)
    name, data = next(iter(gz_files.items()))
    for place in ("one", "two"):
        mirrors.answers[f"/{place}/{name}"] = misbehaves(data)
    mirrors.answers["/three/mnist.npz"] = misbehaves(archive)
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        fetch_mnist()
    assert time.monotonic() - began < 10
    _, one, two, three, hint = str(caught.value).splitlines()
    for line, place in [(one, f"one/{name}"), (two, f"two/{name}"), (three, "three/mnist.npz")]:
        assert line.startswith(f"  {mirrors.url}{place}: ")
        assert cause in line
    assert "--data PATH" in hint
    assert "load_dataset(PATH)" in hint
    assert not is_cached()
    assert names_in(cache) == []


def test_refused_connections_and_unknown_hosts(mirrors, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        refusing = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    resolve = socket.getaddrinfo

    def getaddrinfo(host, *args):
        if host == "unknown.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(mnist, "MIRRORS", (refusing, "http://unknown.invalid/", "nonsense://"))
    monkeypatch.setattr(mnist, "ARCHIVE_URL", refusing + "mnist.npz")
    with pytest.raises(DataError) as caught:
        fetch_mnist()
    _, refused, unknown, nonsense, archive, _ = str(caught.value).splitlines()
    assert refused.endswith(": Connection refused")
    assert archive.endswith(": Connection refused")
    assert unknown.endswith(": Name or service not known")
    assert "nonsense://" in nonsense


def test_a_corrupt_file_is_fetched_again(mirrors, cache, gz_files):
    fetch_mnist()
    name = "t10k-labels-idx1-ubyte.gz"
    (cache / name).write_bytes(b"corrupt")
    assert not is_cached()
    mirrors.asked.clear()
    fetch_mnist()
    assert mirrors.asked == [f"/one/{name}"]
    assert (cache / name).read_bytes() == gz_files[name]


def test_a_file_gets_its_name_when_it_is_whole(mirrors, cache, gz_files):
    name, data = next(iter(gz_files.items()))
    cache.mkdir(parents=True)
    (cache / name).write_bytes(b"old")
    half_way, go_on = threading.Event(), threading.Event()

    def answer(handler):
        gives(data[:50], announced=len(data))(handler)
        half_way.set()
        go_on.wait(5)
        handler.wfile.write(data[50:])

    mirrors.answers[f"/one/{name}"] = answer
    thread = threading.Thread(target=fetch_mnist)
    thread.start()
    try:
        assert half_way.wait(5)
        assert (cache / name).read_bytes() == b"old"
    finally:
        go_on.set()
        thread.join()
    assert (cache / name).read_bytes() == data
    assert names_in(cache) == sorted(gz_files)


def test_two_processes_at_once(mirrors, cache, gz_files):
    """Both ask for the first file before either gets it."""
    name, data = next(iter(gz_files.items()))
    both = threading.Barrier(2, timeout=20)

    def answer(handler):
        both.wait()
        gives(data)(handler)

    mirrors.answers[f"/one/{name}"] = answer
    code = "\n".join(
        [
            "from fastnn.data import mnist",
            f"mnist.MIRRORS, mnist.FILES = {mnist.MIRRORS!r}, {mnist.FILES!r}",
            "mnist.fetch_mnist()",
        ]
    )
    other = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert fetch_mnist() == cache
        assert other.wait(20) == 0
    finally:
        other.kill()
        other.wait()
    assert mirrors.asked.count(f"/one/{name}") == 2
    assert names_in(cache) == sorted(gz_files)


@pytest.mark.parametrize("below", ["file", "file/cache"])
def test_an_unwritable_cache(mirrors, tmp_path, monkeypatch, below):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTNN_CACHE_DIR", str(tmp_path / below))
    assert not is_cached()
    with pytest.raises(DataError, match=r"cache cannot be written: .*FASTNN_CACHE_DIR"):
        fetch_mnist()
    assert mirrors.asked == []


def test_a_cache_that_cannot_be_made(mirrors, monkeypatch):
    """The system's word for the first folder that fails counts, not that its parent is missing."""

    def mkdir(path, mode=0o777):
        if path.parent.exists():
            raise PermissionError(13, "Permission denied", str(path))
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr("os.mkdir", mkdir)
    with pytest.raises(DataError, match=r"cache cannot be written: Permission denied;"):
        fetch_mnist()


def test_a_cache_without_permission(mirrors, cache, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    cache.mkdir(parents=True)
    with pytest.raises(DataError, match=r"cache cannot be written: Permission denied;"):
        fetch_mnist()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's disk that is full")
def test_a_full_disk(mirrors, cache, monkeypatch):
    whole = download.download
    monkeypatch.setattr(
        mnist, "download", lambda url, path, on_progress: whole(url, "/dev/full", on_progress)
    )
    with pytest.raises(DataError, match=r"cache cannot be written: No space left on device;"):
        fetch_mnist()
    assert names_in(cache) == []


def test_nothing_is_printed(mirrors, capfd, caplog):
    fetch_mnist()
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
