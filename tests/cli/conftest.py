"""The command as a function, as a process, and what it is given: data, models, plug-ins."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest

import fastnn
from fastnn.cli import main

START = "from fastnn.cli import main; main()"


def refuse_constant(name):
    raise AssertionError(f"{name} is no JSON")


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one object on stdout, strictly read."""
        (line,) = self.out.splitlines()
        return json.loads(line, parse_constant=refuse_constant)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    # Else each command would take what is faster at that moment.
    monkeypatch.setenv("FASTNN_AUTO", "static")

    def run(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Result(ended.value.code, out, err)

    return run


@pytest.fixture
def refused(run):
    """Run the command and check that it ends with a code and a sentence, and does nothing else."""

    def refused(code, says, *args):
        result = run(*args)
        assert (result.code, result.out) == (code, ""), result
        for part in [says] if isinstance(says, str) else says:
            assert part in result.err
        return result

    return refused


@pytest.fixture
def start(tmp_path):
    """Start the command as a process in the same folder; whatever is left of it is killed.

    `shell` is what a shell does to it, '$@', and `prepare` what Python does before.
    """
    processes = []

    def start(*args, shell='"$@"', prepare="", env=None, **streams):
        command = [sys.executable, "-c", prepare + START, *args]
        process = subprocess.Popen(
            ["sh", "-c", f"exec {shell}", "sh", *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        with process:
            process.kill()


@pytest.fixture
def run_process(start):
    def run_process(*args, **options):
        process = start(*args, **options)
        out, err = process.communicate(timeout=30)
        return Result(process.returncode, (out or b"").decode(), (err or b"").decode())

    return run_process


@pytest.fixture
def on_terminal_of(start):
    """Run the command with stderr on a terminal; return stdout and what it shows."""

    def on_terminal_of(*args, code=0, prepare="", **env):
        ours, theirs = os.openpty()
        variables = {"TERM": "xterm-256color", "NO_COLOR": "", "COLUMNS": "100", **env}
        process = start(*args, env=variables, stderr=theirs, prepare=prepare)
        os.close(theirs)
        shown = b""
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            try:
                while piece := terminal.read(1 << 16):
                    shown += piece
            except OSError:  # how Linux says that the other end was closed
                pass
        out, _ = process.communicate(timeout=60)
        assert process.returncode == code
        return out.decode(), shown.decode()

    return on_terminal_of


@pytest.fixture
def on_terminal(on_terminal_of, data):
    """Train for three epochs with stderr on a terminal; return stdout and what it shows."""

    def on_terminal(*args, **how):
        return on_terminal_of("train", "--data", data, "--epochs", "3", *args, **how)

    return on_terminal


@pytest.fixture(scope="session")
def arrays():
    """Images of 4 × 4 pixels in three classes; the training set leaves a tail of 3 in tens."""
    train, test = fastnn.synthetic(63, 20, 16, 3, seed=1)
    return {"x_train": train.x, "y_train": train.labels, "x_test": test.x, "y_test": test.labels}


@pytest.fixture
def data(tmp_path, arrays):
    """The path of a small data set."""
    np.savez(tmp_path / "small.npz", **arrays)
    return "small.npz"


@pytest.fixture
def model(run, data):
    """The path of a model that was trained on it for one epoch."""
    assert run("train", "--data", data, "--epochs", 1, "--save", "old.safetensors").code == 0
    return "old.safetensors"


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """Install a package with devices: entry points by name, and the source of its module."""
    monkeypatch.delenv("FASTNN_DISABLE_PLUGINS", raising=False)

    def plug_in(entries, source, module="fastnn_test_plug_in"):
        folder = tmp_path / "site-packages"
        information = folder / f"{module}-1.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1")
        lines = [f"{name} = {module}:{target}" for name, target in entries.items()]
        (information / "entry_points.txt").write_text("\n".join(["[fastnn.backends]", *lines]))
        (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return plug_in
