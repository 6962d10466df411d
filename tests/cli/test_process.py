"""What only a process shows: signals, terminals, and streams that are closed or full."""

import os
import re
import signal

import numpy as np
import pytest

import fastnn

FOREVER = ["train", "--epochs", "1000000", "--data"]

# A device that is interrupted, and may go wrong, in a certain one of its mini-batches of ten; there
# are six in an epoch, and a tail. It then takes so long that the loop looks whether it should end.
DEVICE = """
import signal, time
from fastnn.backends.numpy_cpu import NumpyBackend


class Device(NumpyBackend):
    name = "stops"
    at, times, spoil = 0, 1, False

    def __init__(self, *args):
        super().__init__(*args)
        self.calls = 0

    def gather(self, rows, order, start, stop, scale, out):
        super().gather(rows, order, start, stop, scale, out)
        if out.shape != (10, 16):
            return
        self.calls += 1
        if self.calls == self.at:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
            if self.spoil:
                out[...] = float("nan")
            time.sleep(0.12)
"""


@pytest.fixture
def interrupted(run, data, plug_in):
    """Train and be interrupted in a certain mini-batch of ten, so many times."""

    def interrupted(at, *args, times=1, spoil=False):
        source = f"{DEVICE}\n    at, times, spoil = {at}, {times}, {spoil}\n"
        plug_in({"stops": "Device"}, source)
        return run("train", "--data", data, "--device", "stops", "--epochs", 4, *args)

    return interrupted


def test_ctrl_c_finishes_the_mini_batch_and_saves(interrupted, run):
    result = interrupted(8, "--json")
    assert result.code == 130
    assert [epoch["epoch"] for epoch in result.json["epochs"]] == [1]
    assert result.err.splitlines()[-1].startswith("interrupted; what is saved")
    assert result.json["model"] == "fastnn-small.safetensors"
    assert run("evaluate", "fastnn-small.safetensors").code == 0


def test_ctrl_c_in_the_first_epoch_leaves_the_old_model(interrupted, model, tmp_path):
    before = (tmp_path / model).read_bytes()
    result = interrupted(2, "--save", model)
    assert (result.code, result.out) == (130, "")
    assert "nothing is saved" in result.err
    assert (tmp_path / model).read_bytes() == before


def test_a_second_ctrl_c_ends_at_once(interrupted, model, tmp_path):
    before = (tmp_path / model).read_bytes()
    result = interrupted(8, "--save", model, times=2)
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines()[-1] == "fastnn: interrupted"
    assert (tmp_path / model).read_bytes() == before


def test_ctrl_c_never_puts_a_diverged_network_in_the_old_ones_place(interrupted, model, tmp_path):
    before = (tmp_path / model).read_bytes()
    result = interrupted(8, "--save", model, spoil=True)
    assert result.code in (5, 130)
    assert (tmp_path / model).read_bytes() == before


def test_ctrl_c_to_the_process(start, data, tmp_path):
    process = start(*FOREVER, data)
    for line in process.stderr:
        if line.startswith(b"epoch"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.splitlines()[-1] == b"model saved in fastnn-small.safetensors"
    assert err.splitlines()[-1].startswith(b"interrupted; what is saved")
    assert fastnn.Network.load(tmp_path / "fastnn-small.safetensors").sizes == (16, 30, 3)


COLOUR = re.compile(r"\x1b\[[\d;]*m")


def epochs_in(shown):
    return re.findall(r"epoch (\d)/3   cost", shown)


def test_a_terminal_gets_a_bar_and_a_line_an_epoch(on_terminal):
    out, shown = on_terminal()
    assert COLOUR.search(shown)
    assert "━" in shown
    assert epochs_in(shown) == ["1", "2", "3"]
    assert "\x1b" not in out
    assert out.startswith("test accuracy")
    # The bar says which epoch it is, also when epochs are short.
    assert re.search(r"epoch 3/3 +(\x1b\[[\d;]*m)*━", shown)


def test_no_color(on_terminal):
    _, shown = on_terminal(NO_COLOR="1")
    assert not COLOUR.search(shown)
    assert epochs_in(shown) == ["1", "2", "3"]


def test_a_dumb_terminal_gets_plain_lines(on_terminal):
    _, shown = on_terminal(TERM="dumb")
    assert "\x1b" not in shown
    assert "━" not in shown
    assert epochs_in(shown) == ["1", "2", "3"]


def test_quiet_on_a_terminal(on_terminal):
    out, shown = on_terminal("-q")
    assert shown == ""
    assert out.startswith("test accuracy")


@pytest.mark.parametrize("command", ["devices", "--help", "data list"])
def test_a_closed_pipe_is_no_matter(start, command):
    for dtype in ("float32", "float64"):  # what `devices` would have to compile, and say so
        fastnn.Network([2, 2], device="numba", dtype=dtype).predict(np.zeros((1, 2)))
    reading, writing = os.pipe()
    os.close(reading)
    process = start(*command.split(), stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert err == b""
    assert process.returncode in (0, 1)


@pytest.mark.parametrize(("closed", "code"), [("1", (0, 1)), ("2", (0,))])
def test_a_stream_that_is_closed(run_process, data, tmp_path, closed, code):
    result = run_process("train", "--data", data, "--epochs", "1", shell=f'"$@" {closed}>&-')
    assert "Traceback" not in result.err
    assert result.code in code
    assert (tmp_path / "fastnn-small.safetensors").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_output_that_cannot_be_written(run_process):
    with open("/dev/full", "wb") as full:
        result = run_process("data", "list", stdout=full)
    assert result.code == 1
    assert "No space left on device" in result.err
    assert "Errno" not in result.err


def test_the_installed_command_is_this_one():
    from importlib.metadata import entry_points

    (command,) = entry_points(group="console_scripts", name="fastnn")
    assert command.value == "fastnn.cli:main"
    with pytest.raises(SystemExit) as ended:
        command.load()(["--version"])
    assert ended.value.code == 0


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp437", "utf-8"])
def test_what_an_encoding_lacks_does_not_end_the_command(start, encoding):
    process = start("train", "--help", env={"PYTHONIOENCODING": encoding})
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    assert "--eta" in out.decode(encoding)
