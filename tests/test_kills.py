"""A training that is killed at any moment, and resumed, ends as one that was not.

``FASTNN_KILLS`` says how many random kills it takes for each device; by default a few.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

import fastnn

if not hasattr(os, "fork"):
    pytest.skip("this system has no fork", allow_module_level=True)

KILLS = int(os.environ.get("FASTNN_KILLS", "12"))
TIMES = {"history.seconds", "history.samples_per_second"}

# A process trains in a copy of this one, which kills it. Imports and compiled code are there.
PROGRAM = """
import json, os, random, signal, sys, time
from pathlib import Path
import fastnn

device, mode, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
train_set, test_set = fastnn.synthetic(63, 20, 16, 3, seed=1)
learned, validation = train_set.split(20)
OPTIONS = {"optimiser": fastnn.SGD(0.9), "learning_rate": 0.1, "l2": 0.1, "schedule": "plateau:2"}
EPOCHS = 120 if mode == "random" else 3


def train(folder):
    resume = os.path.exists(f"{folder}/last.safetensors")
    network = fastnn.Network([16, 8, 3], device=device)
    every = 3 if device == "numba" and mode == "random" else 1
    checkpoint = fastnn.Checkpoint(folder, every, resume=resume)
    fastnn.train(
        network, learned, test_set, validation, epochs=EPOCHS, checkpoint=checkpoint, **OPTIONS
    )
    network.save(f"{folder}.safetensors")


class Dying:
    # What writes a file, cut off at a certain one of its steps.

    def __init__(self, at):
        self.left = at
        self.fsync, self.rename, self.open = os.fsync, Path.replace, Path.open
        os.fsync = self.flushed
        Path.replace = lambda path, target: self.renamed(path, target)
        Path.open = lambda path, *args, **kwargs: self.opened(path, *args, **kwargs)

    def step(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def flushed(self, number):
        self.step()
        self.fsync(number)
        self.step()

    def renamed(self, path, target):
        self.step()
        self.rename(path, target)
        self.step()

    def opened(dying, path, mode="r", *args, **kwargs):
        file = dying.open(path, mode, *args, **kwargs)
        if mode == "xb":
            whole = file.write

            class Halves:
                def __enter__(self):
                    return self

                def __exit__(self, *error):
                    file.close()

                def __getattr__(self, name):
                    return getattr(file, name)

                def write(self, content):
                    dying.step()
                    whole(content[: len(content) // 2])
                    file.flush()
                    dying.step()
                    whole(content[len(content) // 2 :])

            return Halves()
        return file


def child(folder, at=0):
    pid = os.fork()
    if not pid:
        if at:
            Dying(at)
        try:
            train(folder)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def ended(pid):
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code == 0


train("warm")  # what is loaded and compiled is there, in the copies
began = time.perf_counter()
train("whole")
took = time.perf_counter() - began
rng = random.Random(f"{device} {mode}")
count, left, run = 0, 0, 0
while count < kills:
    run += 1
    folder, at = f"run{run}", 0
    while True:
        at = run if mode == "write" and at == 0 else -1
        pid = child(folder, max(at, 0))
        if mode == "random":
            time.sleep(rng.uniform(0, took / 2))
            if count < kills:
                os.kill(pid, signal.SIGKILL)
        if ended(pid):
            break
        count += 1
        left += bool(list(Path(folder).glob(".*.tmp")))
    if mode == "write" and at > 0:
        break  # it has fewer steps than that
print(json.dumps({"runs": run, "kills": count, "left": left}))
"""


@pytest.mark.parametrize("mode", ["random", "write"])
@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_it_ends_as_one_that_was_not_killed(tmp_path, device, mode):
    kills = KILLS if mode == "random" else 1000
    fastnn.Network([2, 2], device=device).predict(np.zeros((1, 2)))  # compiled, if it was not
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, device, mode, str(kills)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60 + kills,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    result = json.loads(ran.stdout)
    if mode == "random":
        assert result["kills"] == kills
    else:  # every step of the writing of two files in three epochs, and the model
        assert result["kills"] > 30
        assert result["left"] > 10
    expected = load_file(tmp_path / "whole" / "last.safetensors")
    for number in range(1, result["runs"] + 1):
        run = f"run{number}"
        for name in ("{}.safetensors", "{}/best.safetensors"):
            ours, theirs = ((tmp_path / name.format(each)).read_bytes() for each in (run, "whole"))
            assert ours == theirs, (run, name)
        assert sorted(os.listdir(tmp_path / run)) == ["best.safetensors", "last.safetensors"]
        last = load_file(tmp_path / run / "last.safetensors")
        assert last.keys() == expected.keys()
        for name in last.keys() - TIMES:
            assert last[name].tobytes() == expected[name].tobytes(), (run, name)
