"""Is this revision as fast as that one? Both train in turns, in one run.

    python benchmarks/gate.py                           the working tree against the one that the
                                                        newest committed result was measured with
    python benchmarks/gate.py main                      against another revision
    python benchmarks/gate.py main HEAD                 one revision against another
    python benchmarks/gate.py main --network 784-128-10 --batch-size 128 --device numba

Each revision is checked out into a folder of its own and runs in a process of its own, which waits
while the other trains. What the machine does meanwhile it does to both: a round's two epochs come
one after the other, in every second round the other way round, and their ratio says something where
they themselves do not. The status is 1 if the second is slower: by more than --slower-by in the
median of the rounds' ratios, and in all rounds but few.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

# What a process runs: train on a line from stdin, answer with the seconds. It uses what every
# revision has.
WORKER = """
import json, sys
import numpy as np
import fastnn

sizes, batch_size, device, samples = json.loads(sys.argv[1])
rng = np.random.default_rng(0)
x = rng.integers(0, 256, (samples, sizes[0]), dtype=np.uint8)
x[rng.random(x.shape) < 0.81] = 0
data = x, rng.integers(0, sizes[-1], samples)
network = fastnn.Network(sizes, cost="quadratic", device=device)
for _ in sys.stdin:
    # The second of two epochs: in the first the loop still finds out how far to go in one call.
    history = fastnn.train(network, data, epochs=2, batch_size=batch_size)
    print(json.dumps([history.epochs[-1].seconds, history.step]), flush=True)
"""


class Verdict(NamedTuple):
    """How the second compares with the first.

    Attributes
    ----------
    ratio
        The first's seconds to the second's, the median of the rounds: below 1 the second is slower.
    spread
        The least and the largest of the rounds' ratios.
    slower
        Whether the second is slower, beyond noise.
    """

    ratio: float
    spread: tuple[float, float]
    slower: bool


def judge(pairs: list[tuple[float, float]], slower_by: float) -> Verdict:
    """Compare rounds of (seconds of the first, seconds of the second)."""
    ratios = sorted(first / second for first, second in pairs)
    ratio = statistics.median(ratios)
    # By chance alone, 9 of 11 rounds go the same way in 3 of 100 runs.
    mostly = sum(each < 1 for each in ratios) >= 0.8 * len(ratios)
    return Verdict(ratio, (ratios[0], ratios[-1]), mostly and ratio < 1 / (1 + slower_by))


class Worker:
    """A revision that trains when it is asked to."""

    def __init__(self, folder: Path, cache: Path, task: list[Any]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(folder), "FASTNN_DISABLE_PLUGINS": "1"}
        environment["FASTNN_CACHE_DIR"] = str(cache)  # compiled code belongs to its folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
        )

    def epoch(self) -> tuple[float, str]:
        """Train, and return an epoch's seconds and the name of the step."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            seconds, step = json.loads(self._process.stdout.readline())
        except (BrokenPipeError, ValueError):
            raise SystemExit("gate: a revision failed; what it said stands above") from None
        return seconds, step

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()


def checked_out(revision: str, folder: Path) -> Path:
    """Put the files of a revision into a folder, without touching the repository."""
    root = Path(__file__).resolve().parent.parent
    folder.mkdir()
    archive = subprocess.run(
        ["git", "-C", str(root), "archive", "--format=tar", revision], capture_output=True
    )
    if archive.returncode:
        raise SystemExit(f"gate: {archive.stderr.decode().strip().splitlines()[-1]}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def baseline() -> str:
    """Return the revision that the newest of the committed epochs was measured with."""
    files = (Path(__file__).parent / "results").glob("epoch-*.json")
    newest = max(map(json.loads, map(Path.read_text, files)), key=lambda each: each["datetime"])
    return newest["commit_info"]["id"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Is this revision as fast as that one?")
    parser.add_argument("first", nargs="?", help="a revision; else the newest result's")
    parser.add_argument("second", nargs="?", help="another; else the working tree")
    parser.add_argument("--network", default="784-30-10")
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--device", default="numba")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--slower-by", type=float, default=0.03, help="0.03 is three in a hundred")
    asked = parser.parse_args(arguments)
    asked.first = asked.first or baseline()
    sizes = [int(n) for n in asked.network.split("-")]
    task = [sizes, asked.batch_size, asked.device, asked.samples]
    with tempfile.TemporaryDirectory() as work:
        first = checked_out(asked.first, Path(work, "first"))
        second = (
            checked_out(asked.second, Path(work, "second"))
            if asked.second
            else Path(__file__).resolve().parent.parent
        )
        workers = [Worker(folder, Path(work, "cache"), task) for folder in (first, second)]
        try:
            steps = [worker.epoch()[1] for worker in workers]  # compiles, and warms up
            pairs = []
            for number in range(asked.rounds):
                turns = [0, 1] if number % 2 == 0 else [1, 0]
                seconds = dict((who, workers[who].epoch()[0]) for who in turns)
                pairs.append((seconds[0], seconds[1]))
        finally:
            for worker in workers:
                worker.end()
    verdict = judge(pairs, asked.slower_by)
    names = [asked.first, asked.second or "the working tree"]
    for who, name in enumerate(names):
        rate = asked.samples / statistics.median(pair[who] for pair in pairs)
        print(f"{name}: {rate:,.0f} samples/s, {steps[who]} step")
    least, largest = verdict.spread
    print(
        f"{names[1]} is {verdict.ratio:.3f} times as fast ({least:.3f} to {largest:.3f} "
        f"in {len(pairs)} rounds): {'SLOWER' if verdict.slower else 'not slower'}"
    )
    return int(verdict.slower)


if __name__ == "__main__":
    sys.exit(main())
