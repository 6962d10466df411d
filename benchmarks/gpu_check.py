"""The parts of gpu_check.sh, one after the other, and the report on them.

    python benchmarks/gpu_check.py OUT [tests] [sanitizer] [train] [bench]

A part runs in processes of its own with a time limit, and whatever becomes of it the next one runs.
The report is written anew after each. Needs nothing but Python: what is missing, it reports.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import gpu_report
from gpu_report import FAILED, NOT_RUN, PASSED, Result

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# Seconds a part may take at the most; the benchmarks have what is left, and this at the least.
LIMITS = {"tests": 200.0, "sanitizer": 75.0, "train": 60.0}
LEAST_FOR_BENCH = 180.0
ACCURACY = 0.95  # of the book's first network, at its best epoch
BOOK = ["--cost", "quadratic", "--init", "normal", "--eta", "3"]
BOOK += ["--epochs", "30", "--batch-size", "10"]
TOOLS = ("memcheck", "racecheck", "synccheck")
# What only a GPU can show. It goes first, and has so much of the tests' time.
ON_THE_DEVICE, ITS_SHARE = "tests/backends/test_cupy_cuda.py", 0.6
LARGEST_LOG = 8 << 20

USE_IT = """\
import sys, fastnn
try:
    fastnn.device(sys.argv[1])
except fastnn.FastnnError as error:
    sys.exit(str(error).splitlines()[0])
"""

# What is left out, or comes out otherwise, where a package is missing.
WANTED = {
    "cupy": "the device itself: every part fails",
    "torch": "the peers PyTorch, PyTorch CUDA graph and torch.compile; the GEMM rate in tf32",
    "triton": "the peer torch.compile",
    "jax": "the peer JAX",
    "pytest": "the tests",
    "hypothesis": "tests on drawn examples",
    "numba": "the tests of the device numba",
    "sklearn": "the tests on scikit-learn's digits",
    "PIL": "the tests on pictures",
    "pooch": "the tests of downloading MNIST",
    "requests": "the tests of downloading MNIST",
    "platformdirs": "the tests of the user's cache folder",
    "threadpoolctl": "the tests of --threads",
    "scipy_openblas32": "the tests of a BLAS of our own; numba uses SciPy's",
    "xdist": "nothing, but the tests run in one process and may run out of time",
}
VERSIONS = ("fastnn-mlp", "numpy", "cupy-cuda13x", "cupy-cuda12x", "torch", "triton", "jax")
VERSIONS += ("scipy", "numba")


class Ran(NamedTuple):
    """A command that was run: its status, or None past its limit, and what it said."""

    status: int | None
    out: str
    log: str


def run(command: list[str], seconds: float, **environment: str) -> Ran:
    """Run a command from the checkout's root for so many seconds at the most."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        # A session of its own, so that what it leaves running can be ended with it.
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            status: int | None = child.wait(max(seconds, 1))
        except subprocess.TimeoutExpired:
            status = None
            child.send_signal(signal.SIGINT)  # pytest then says what it has found so far
            with suppress(subprocess.TimeoutExpired):
                child.wait(8)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
    return Ran(status, said[0], f"$ {' '.join(command)}\n{said[0]}{said[1]}\n")


class Check:
    """What the parts share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out: Path = options.out
        self.device: str = options.device
        self.samples: int | None = options.samples
        self.deadline = monotonic() + options.seconds
        self.gpu: str | None = None
        self.mnist = os.environ.get("FASTNN_MNIST")

    def left(self) -> float:
        return self.deadline - monotonic()

    def log(self, part: str, text: str) -> None:
        """Add to the part's log, of which the end is kept."""
        path = self.out / f"{part}.log"
        text = (path.read_text() if path.exists() else "") + text
        path.write_text(text[-LARGEST_LOG:])


def tests(check: Check, seconds: float) -> list[Result]:
    """The whole suite, in which the device must not be skipped; the device's own tests first."""
    if not find_spec("pytest"):
        return [result("tests", NOT_RUN, "pytest is not installed")]
    until = monotonic() + seconds
    # What is said once, on the first use of a device, would disturb tests of what is said.
    check.log("tests", run([sys.executable, "-m", "fastnn", "devices"], seconds / 2).log)
    results = []
    if (ROOT / ON_THE_DEVICE).exists():
        share = ITS_SHARE * (until - monotonic())
        results.append(suite(check, "tests: the device", [ON_THE_DEVICE], share))
    others = ["tests", f"--ignore={ON_THE_DEVICE}"]
    return [*results, suite(check, "tests", others, until - monotonic())]


def suite(check: Check, part: str, which: list[str], seconds: float) -> Result:
    """Run some tests, by several processes where that can be."""
    began = monotonic()
    command = [sys.executable, "-m", "pytest", *which, "-q", "-rfE", "--tb=short"]
    command += ["-p", "no:cacheprovider", "--continue-on-collection-errors"]
    processors = os.cpu_count() or 1
    if find_spec("xdist") and processors > 2:
        command += ["-n", str(min(8, processors))]
    required = check.device.partition(":")[0]
    ran = run(command, seconds, FASTNN_REQUIRE=required, COLUMNS="400", PY_COLORS="0")
    check.log("tests", ran.log)
    return judged_tests(ran, seconds, part) | {"seconds": monotonic() - began}


def judged_tests(ran: Ran, seconds: float, part: str = "tests") -> Result:
    """Return what pytest's own summary says."""
    counts: dict[str, int] = {}
    lines = ran.out.strip().splitlines()
    for number, what in re.findall(
        r"(\d+) (passed|failed|skipped|error|xfailed)", (lines or [""])[-1]
    ):
        counts[what] = int(number)
    names = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    # What lacks a package was not run; that is no failure of ours.
    lacking = {line: _lacking(line, ran.out) for line in names}
    wanting = [line for line, package in lacking.items() if package and not find_spec(package)]
    failures = [line for line in names if line not in wanting]
    why = ", ".join(f"{number} {what}" for what, number in counts.items()) or "no summary"
    if wanting:
        packages = ", ".join(sorted({str(lacking[line]) for line in wanting}))
        why += f"; {len(wanting)} of them not run for want of {packages}"
    good = ran.status == 0 or (ran.status == 1 and wanting and not failures)
    if ran.status is None:
        why = f"past its limit of {seconds:.0f} s: {why}"
    elif not good and not failures:
        why = f"pytest ended with {ran.status}: {why}"
    good = good and counts.get("passed", 0) > 0
    more: Result = {"counts": counts, "failures": failures, "not_run": wanting}
    more["last_lines"] = lines[-5:]
    return result(part, PASSED if good else FAILED, why, **more)


def _lacking(line: str, out: str) -> str | None:
    """Return the package that a line of the summary lacks.

    Of a file that could not be imported, the summary names only the file.
    """
    if line.startswith("ERROR ") and "::" not in line:
        _, _, line = out.partition(f" ERROR collecting {line.split()[1]} _")
        line = re.split(r"^_+ ", line, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.search(r"ModuleNotFoundError: No module named '(\w+)", line)
    return found and found.group(1)


def sanitizer(check: Check, seconds: float) -> list[Result]:
    """compute-sanitizer's tools over short trainings in one launch."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        return [result("sanitizer", NOT_RUN, "compute-sanitizer is not installed")]
    results = []
    short = [sys.executable, str(HERE / "gpu_train.py"), "short", "--device", check.device]
    until = monotonic() + seconds
    for number, name in enumerate(TOOLS):
        began = monotonic()
        share = (until - began) / (len(TOOLS) - number)
        command = [tool, "--tool", name, "--error-exitcode", "9", "--print-limit", "20"]
        ran = run([*command, *short, "--step", "resident"], share)
        check.log("sanitizer", ran.log)
        results.append(judged_sanitizer(name, ran, share) | {"seconds": monotonic() - began})
    return results


def judged_sanitizer(name: str, ran: Ran, seconds: float) -> Result:
    """Return what a tool found. Some machines do not let it near their GPU."""
    part = f"sanitizer: {name}"
    summary = [line for line in ran.log.splitlines() if "SUMMARY" in line]
    why = summary[-1].strip("= ") if summary else last_line(ran.log)
    if "Device not supported" in ran.log:
        return result(part, NOT_RUN, "compute-sanitizer: Device not supported")
    if ran.status is None and "ERROR SUMMARY" not in ran.log and "Invalid" not in ran.log:
        return result(part, NOT_RUN, f"past its limit of {seconds:.0f} s, with nothing found")
    return result(part, FAILED if ran.status or not summary else PASSED, why)


def train(check: Check, seconds: float) -> list[Result]:
    """The book's first network by the command, and the course of its training beside NumPy's."""
    return [accuracy(check, seconds / 2), course(check, seconds / 2)]


def accuracy(check: Check, seconds: float) -> Result:
    part = "train: accuracy on MNIST"
    if not check.mnist:
        return result(part, NOT_RUN, "FASTNN_MNIST is not set")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fastnn", "train", "--data", check.mnist]
        command += ["--device", check.device, *BOOK, "--json"]
        ran = run([*command, "--save", str(Path(folder, "model.safetensors"))], seconds)
    check.log("train", ran.log)
    if ran.status != 0:
        return result(part, FAILED, ended(ran, seconds))
    trained = json.loads(ran.out)
    best = max(trained["epochs"], key=lambda epoch: epoch["test_accuracy"])
    why = f"{100 * best['test_accuracy']:.2f} % in epoch {best['epoch']}, by the step "
    why += f"{trained['step']}, {trained['samples_per_second']:,.0f} samples/s"
    good = best["test_accuracy"] >= ACCURACY
    if not good:
        why += f"; asked are {100 * ACCURACY:g} %"
    return result(part, PASSED if good else FAILED, why, training=trained)


def course(check: Check, seconds: float) -> Result:
    part = "train: the course of NumPy"
    command = [sys.executable, str(HERE / "gpu_train.py"), "trajectory", "--device", check.device]
    ran = run(command, seconds)
    check.log("train", ran.log)
    if ran.status != 0:
        return result(part, FAILED, ended(ran, seconds))
    rows = json.loads(ran.out)
    wrong = [row["name"] for row in rows if not row["passed"]]
    data = "MNIST" if check.mnist else "synthetic images"
    steps = ", ".join(sorted({row["step"] for row in rows}))
    why = f"too far from NumPy: {', '.join(wrong)}; " if wrong else ""
    why += f"on {data}, by the step {steps}"
    return result(part, FAILED if wrong else PASSED, why, trajectory=rows)


def bench(check: Check, seconds: float) -> list[Result]:
    """The benchmarks; a network that takes its process along does not take the others."""
    until = monotonic() + seconds
    file, todo = check.out / "bench.json", list(gpu_report.NETWORKS)
    report: Result = {"contests": [], "left_out": []}
    why = ""
    while todo and until - monotonic() > 1:
        file.unlink(missing_ok=True)
        command = [sys.executable, str(HERE / "gpu_epoch.py"), "--out", str(file)]
        command += ["--device", check.device, "--limit", str(int(until - monotonic() - 5))]
        if check.samples:
            command += ["--samples", str(check.samples), "--seconds", "0.1"]
        ran = run([*command, "--networks", *todo], until - monotonic())
        check.log("bench", ran.log)
        if not file.exists():
            why = ended(ran, seconds)
            break
        part = json.loads(file.read_text())
        report = {**part, "contests": report["contests"] + part["contests"]}
        if ran.status == 0:
            todo = []
            break
        done = len(part["contests"])
        todo = todo[done:]
        if part["under_way"]:  # it took the process along
            why += f"{part['under_way']}: {ended(ran, seconds)}; "
            todo = todo[1:]
        elif not done:
            break
    file.with_suffix(".part").unlink(missing_ok=True)
    report["left_out"] += [name for name in todo if name not in report["left_out"]]
    file.write_text(json.dumps(report, indent=1))
    state, said = gpu_report.judge(report["contests"], report["left_out"], check.gpu)
    if why:
        state, said = FAILED, f"{why.rstrip('; ')}; {said}" if report["contests"] else why
    return [result("bench", state, said, **report)]


PARTS: dict[str, Callable[[Check, float], list[Result]]] = {
    "tests": tests,
    "sanitizer": sanitizer,
    "train": train,
    "bench": bench,
}


def result(part: str, state: str, why: str, **more: Any) -> Result:
    return {"part": part, "state": state, "why": why, "seconds": 0.0, **more}


def ended(ran: Ran, seconds: float) -> str:
    """Say how a command failed."""
    if ran.status is None:
        return f"past its limit of {seconds:.0f} s"
    return f"ended with {ran.status}: {last_line(ran.log)}"


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def unusable(device: str) -> str | None:
    """Return why the device cannot be used, or None."""
    ran = run([sys.executable, "-c", USE_IT, device], 60)
    return None if ran.status == 0 else f"the device cannot be used: {last_line(ran.log)}"


def machine(installed: str) -> Result:
    """Return what bears on the figures, and nothing that tells one machine from another."""
    asked = "name,driver_version,memory.total,clocks.max.sm"
    query = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    names = ("GPU", "driver", "memory", "highest clock")
    answers = run(query, 20).out.splitlines() if shutil.which("nvidia-smi") else []
    gpus = [dict(zip(names, map(str.strip, line.split(",")), strict=False)) for line in answers]
    about: Result = {"date": datetime.now(UTC).isoformat(timespec="seconds")}
    about |= gpus[0] if gpus else {"GPU": "none: nvidia-smi finds no GPU"}
    about["CUDA"] = cuda() or "none"
    about["processors"] = os.cpu_count()
    about["installed"] = installed
    about["versions"] = {"python": sys.version.split()[0]}
    for name in VERSIONS:
        try:
            about["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            about["versions"][name] = None
    return about


def cuda() -> str | None:
    """Return the versions of CUDA that the driver and CuPy have."""
    code = "from cupy.cuda import runtime as r; print(r.driverGetVersion(), r.runtimeGetVersion())"
    numbers = run([sys.executable, "-c", code], 60).out.split()
    if len(numbers) != 2:
        return None
    driver, runtime = (f"{int(n) // 1000}.{int(n) % 1000 // 10}" for n in numbers)
    return f"{driver} (driver), {runtime} (runtime)"


def missing(mnist: str | None) -> list[str]:
    """Say what is not here, and what is left out for it."""
    lines = [f"{name}: {what}" for name, what in WANTED.items() if not find_spec(name)]
    if not mnist:
        lines.append("FASTNN_MNIST: the accuracy; the benchmarks use synthetic images")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Check fastnn on a GPU.")
    parser.add_argument("out", type=Path, help="a folder for the report")
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--device", default="cuda", help="another one, to try this script")
    parser.add_argument("--samples", type=int, help="of the benchmarks, to try this script")
    parser.add_argument("--seconds", type=float, default=522.0, help="in all")
    parser.add_argument("--installed", default="before", help="how, for the report")
    options = parser.parse_intermixed_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"{unknown[0]!r} is no part: {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # children are ended on the way out
    options.out.mkdir(parents=True, exist_ok=True)
    for old in ("gpu_check.json", "gpu_check.md", "bench.json", *(f"{p}.log" for p in PARTS)):
        (options.out / old).unlink(missing_ok=True)
    check = Check(options)
    report: Result = {"schema": 1, "device": check.device, "machine": machine(options.installed)}
    report |= {"missing": missing(check.mnist), "parts": []}
    check.gpu = report["machine"]["GPU"]
    print(f"{check.gpu}", *report["missing"], sep="\n  missing: ", flush=True)
    asked = [part for part in PARTS if part in options.parts or not options.parts]
    if options.installed.startswith("FAILED"):
        report["parts"].append(result("install", FAILED, options.installed))
    reason = unusable(check.device)
    for number, part in enumerate(asked):
        waiting = [result(each, NOT_RUN, "not reached") for each in asked[number:]]
        write(check.out, {**report, "parts": report["parts"] + waiting})
        seconds = limit(part, asked[number + 1 :], check.left())
        print(f"== {part}: at most {seconds:.0f} s", flush=True)
        began = monotonic()
        try:
            results = [result(part, FAILED, reason)] if reason else PARTS[part](check, seconds)
        except Exception as error:  # a mistake in this script must not keep the others from running
            results = [result(part, FAILED, f"{type(error).__name__}: {error}")]
        for each in results:
            each["seconds"] = each["seconds"] or (monotonic() - began) / len(results)
            print(f"{each['part']}: {each['state']}: {each['why']}", flush=True)
        report["parts"] += results
    write(check.out, report)
    print("\n" + gpu_report.summary(report))
    return int(any(each["state"] == FAILED for each in report["parts"]))


def limit(part: str, later: list[str], left: float) -> float:
    """Return how long a part may take: the last one all there is, others so that it has enough."""
    if not later:
        return left
    kept = sum(LIMITS.get(each, LEAST_FOR_BENCH) for each in later)
    return max(1.0, min(LIMITS[part], left - kept))


def write(out: Path, report: Result) -> None:
    (out / "gpu_check.json").write_text(json.dumps(report, indent=1))
    (out / "gpu_check.md").write_text(gpu_report.summary(report))


if __name__ == "__main__":
    sys.exit(main())
