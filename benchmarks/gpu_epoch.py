"""Whole epochs through ``train()`` on a GPU, and the same by PyTorch and JAX there.

    python benchmarks/gpu_epoch.py --out FILE
    python benchmarks/gpu_epoch.py --out FILE --networks "784-30-10 b10" "784-128-10 b128 tf32"
    python benchmarks/gpu_epoch.py --out FILE --device numba --samples 1003 --seconds 0.1

In each round every contestant takes its turn, one after the other; a turn is as many epochs as make
a tenth of a second. Ratios are medians over the rounds. Who has other parameters after some
mini-batches than NumPy in float64, or after an epoch than NumPy in float32, is not timed. A
network's name is its shape, the mini-batches' size and the precision of products: fp32, or tf32,
which is NVIDIA's shorter one. The images are those in the folder that FASTNN_MNIST names, else
synthetic ones. FILE is written anew after each network.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import gpu_report
import numpy as np
import peers
from gpu_report import OURS
from networks import flops_per_sample
from roofs import gemm_rate, timed

import fastnn
from fastnn.training import epoch_order

TURN = 0.1  # seconds
ROUNDS = (3, 11)  # at least, at most
# Largest difference of a parameter, to its array's largest; and how far apart two may end, to how
# far the epoch took them. TF32 keeps 10 bits of what is multiplied.
CLOSE = {"fp32": 1e-3, "tf32": 1e-2}
WAY = {"fp32": 0.02, "tf32": 0.1}
# Floating-point operations in an epoch, beyond which NumPy would take too long to be compared with.
MOST_BY_HAND = 2e12


class Contest(NamedTuple):
    sizes: list[int]
    batch_size: int
    precision: str

    @classmethod
    def parse(cls, text: str) -> Contest:
        shape, batch_size, precision = [*text.split(), "fp32"][:3]
        return cls([int(n) for n in shape.split("-")], int(batch_size.lstrip("b")), precision)

    @property
    def name(self) -> str:
        return f"{'-'.join(map(str, self.sizes))} b{self.batch_size} {self.precision}"

    def flops_per_sample(self) -> int:
        return flops_per_sample(self.sizes)


class Contestant(NamedTuple):
    few: Callable[[], Any]  # some mini-batches, after which it is checked
    epoch: Callable[[], Any]
    parameters: Callable[[], peers.Arrays]
    seconds: Callable[[int], float]  # an epoch's, of so many


class Ours:
    """A network of ours, trained through train()."""

    def __init__(self, contest: Contest, data: fastnn.Dataset, device: str) -> None:
        # fp32 is what a device does anyway; only some have another.
        other = {} if contest.precision == "fp32" else {"precision": contest.precision}
        self.backend = fastnn.device(device, **other)
        self.network = fastnn.Network(contest.sizes, device=self.backend)
        self.data, self.batch_size, self.step = data, contest.batch_size, ""

    def contestant(self, few: fastnn.Dataset) -> Contestant:
        # An epoch more: in the first the loop still finds out how far to go in one call.
        return Contestant(
            lambda: self.train(1, few),
            lambda: self.train(1),
            self.parameters,
            lambda epochs: self.train(1 + epochs),
        )

    def parameters(self) -> peers.Arrays:
        return [*self.network.weights, *self.network.biases]

    def train(self, epochs: int, data: fastnn.Dataset | None = None) -> float:
        history = fastnn.train(
            self.network,
            data or self.data,
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=peers.RATE,
        )
        self.step = history.step
        return float(np.median([epoch.seconds for epoch in history.epochs[epochs > 1 :]]))


def measure(contest: Contest, data: fastnn.Dataset, device: str, seconds: float) -> dict[str, Any]:
    """Return what a contest came to; whoever fails is named, and the others go on."""
    platform = "cuda" if device.partition(":")[0] == "cuda" else "cpu"
    steps = math.ceil(len(data) / contest.batch_size)
    start = fastnn.Network(contest.sizes, device="numpy")
    began_with = [*start.weights, *start.biases]
    task = peers.Task(
        start.weights, start.biases, data, contest.batch_size, platform, contest.precision
    )
    order = epoch_order(len(data), seed=0, epoch=1)
    check = peers.Check(task)
    expected = reference(contest, task, check, order)
    ours, failed, forms, differences = None, {}, {}, {}
    contestants: dict[str, Contestant] = {}

    def enter(who: str, make: Callable[[], Contestant]) -> None:
        try:
            contestant = make()
            contestant.few()
            check(who, contestant.parameters())
            contestant.epoch()
            differences[who] = compare(contestant.parameters(), expected, began_with)
            close, way = differences[who]
            if not (close <= CLOSE[contest.precision] and way <= WAY[contest.precision]):
                raise ValueError(
                    f"does not do the same: its parameters are {close:.1e} of the largest off, "
                    f"{way:.1e} of the way that the epoch took them"
                )
            contestants[who] = contestant
        except Exception as error:
            failed[who] = in_a_line(error)
            traceback.print_exc()

    def make_ours() -> Contestant:
        nonlocal ours
        ours = Ours(contest, data, device)
        return ours.contestant(check.data)

    def make_peer(who: str) -> Contestant:
        peer = peers.PEERS[who].make(task)
        if peer.form:
            forms[who] = peer.form
        return Contestant(
            lambda: peer.epoch(check.order),
            lambda: peer.epoch(order),
            peer.parameters,
            lambda epochs: timed(lambda: [peer.epoch(order) for _ in range(epochs)]) / epochs,
        )

    enter(OURS, make_ours)
    for who in (who for who, entry in peers.PEERS.items() if "cuda" in entry.platforms):
        enter(who, lambda who=who: make_peer(who))
    times = in_rounds({who: each.seconds for who, each in contestants.items()}, seconds, failed)
    medians = {who: float(np.median(each)) for who, each in times.items()}
    rivals = [who for who in medians if who != OURS]
    best = min(rivals, key=medians.__getitem__, default=None)
    mine = medians.get(OURS)
    flops = contest.flops_per_sample() * len(data) / mine if mine else None
    try:
        gemm = gemm_rate(contest.precision, platform)
    except Exception as error:
        gemm, failed["GEMM rate"] = None, in_a_line(error)
    return {
        "name": contest.name,
        "device": device,
        "step": ours.step if ours else "",
        "samples": len(data),
        "steps": steps,
        "rounds": max(map(len, times.values()), default=0),
        "seconds": times,
        "us_a_step": {who: 1e6 * median / steps for who, median in medians.items()},
        "samples_per_second": {who: len(data) / median for who, median in medians.items()},
        "best_peer": best,
        "ratio_to_best_peer": float(np.median(np.divide(times[best], times[OURS])))
        if best and mine
        else None,
        "flops_per_second": flops,
        "gemm_flops_per_second": gemm,
        "of_the_gemm_rate": flops / gemm if flops and gemm else None,
        "differences": differences,
        "forms": forms,
        "failed": failed,
    }


def reference(
    contest: Contest, task: peers.Task, check: peers.Check, order: np.ndarray
) -> peers.Arrays:
    """Return the parameters after an epoch, by NumPy; where that takes long, by PyTorch in fp32."""
    who = "NumPy by hand"
    if contest.flops_per_sample() * len(order) > MOST_BY_HAND and peers.PEERS["PyTorch"].installed:
        who = "PyTorch"
    peer = peers.PEERS[who].make(replace(task, precision="fp32"))
    peer.epoch(check.order)
    peer.epoch(order)
    return peer.parameters()


def compare(got: peers.Arrays, expected: peers.Arrays, start: peers.Arrays) -> tuple[float, float]:
    """Return the largest difference of an array to its largest number, and of all to their way."""
    off = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(got, expected, strict=True)]
    apart, way = (
        np.sqrt(sum(np.square(a - b, dtype=np.float64).sum() for a, b in zip(x, y, strict=True)))
        for x, y in ((got, expected), (expected, start))
    )
    return float(max(off)), float(apart / way)


def in_rounds(
    epochs: dict[str, Callable[[int], float]], seconds: float, failed: dict[str, str]
) -> dict[str, list[float]]:
    """Let each take turns until the time is up; return its seconds an epoch, a number a turn.

    Who fails is named in ``failed`` and has no times.
    """
    times: dict[str, list[float]] = {who: [] for who in epochs}
    many: dict[str, int] = {}

    def turn(who: str) -> None:
        try:
            if who in many:
                times[who].append(epochs[who](many[who]))
            else:
                many[who] = min(50, max(1, round(TURN / epochs[who](1))))
        except Exception as error:
            failed[who] = in_a_line(error)
            traceback.print_exc()
            del times[who]

    for who in epochs:
        turn(who)
    began = perf_counter()
    for done in range(ROUNDS[1]):
        if done >= ROUNDS[0] and perf_counter() - began > seconds:
            break
        for who in list(times):
            turn(who)
    return times


def in_a_line(error: Exception) -> str:
    """Return what went wrong, short enough for a report."""
    first = str(error).strip().splitlines()[:1]
    return ": ".join([type(error).__name__, *first])[:300]


def alive(device: str) -> bool:
    """Say whether the device still computes: after some errors it does nothing for a process."""
    try:
        fastnn.Network([2, 1], device=device).forward(np.zeros((1, 2), np.float32))
    except Exception:
        traceback.print_exc()
        return False
    return True


def empty_memory() -> None:
    """Give back what a contest's arrays took on the device."""
    gc.collect()
    if torch := sys.modules.get("torch"):
        torch.cuda.empty_cache()
    if cupy := sys.modules.get("cupy"):
        cupy.get_default_memory_pool().free_all_blocks()


def main() -> int:
    parser = argparse.ArgumentParser(description="Whole epochs on a GPU, and the same by others.")
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    parser.add_argument("--device", default="cuda", help="ours; the peers use CUDA or the CPU")
    parser.add_argument("--networks", nargs="+", default=gpu_report.NETWORKS, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=6.0, help="of measuring a network")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds in all")
    parser.add_argument("--samples", type=int, help="synthetic ones, so many, to try things")
    options = parser.parse_args()
    # JAX would take most of the GPU's memory for itself.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    warnings.simplefilter("ignore")  # the peers' own
    began = perf_counter()
    contests = [Contest.parse(text) for text in options.networks]
    folder = os.environ.get("FASTNN_MNIST")
    if options.samples:
        source, data = "synthetic", fastnn.synthetic(train=options.samples, test=10).train
    elif folder:
        source, data = "MNIST", fastnn.load_dataset(folder).train
    else:
        source, data = "synthetic", fastnn.synthetic().train
    detail = fastnn.device(options.device).detail
    report: dict[str, Any] = {"device": options.device, "detail": detail, "data": source}
    report["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    report |= {"contests": [], "left_out": [], "under_way": None}

    def write() -> None:
        part = options.out.with_suffix(".part")
        part.write_text(json.dumps(report, indent=1))
        part.replace(options.out)

    longest = 0.0
    for contest in contests:
        if perf_counter() - began + longest > options.limit:
            report["left_out"].append(contest.name)
            continue
        report["under_way"] = contest.name
        write()
        start = perf_counter()
        result = measure(contest, data, options.device, options.seconds)
        empty_memory()
        longest = max(longest, perf_counter() - start)
        report["contests"].append(result)
        report["under_way"] = None
        write()
        told = ", ".join(f"{who} {us:,.2f}" for who, us in result["us_a_step"].items())
        told += "".join(f"; {who} FAILED: {why}" for who, why in result["failed"].items())
        print(f"{contest.name}: µs a step: {told}  ({perf_counter() - start:.0f} s)", flush=True)
        if result["failed"] and not alive(options.device):
            print("the device has failed; the other networks need another process", flush=True)
            return 3
    write()
    print("\n".join(gpu_report.table(report["contests"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
