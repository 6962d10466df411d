"""benchmarks/gpu_check.sh where there is no GPU: it must say so, and claim nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPT = BENCHMARKS / "gpu_check.sh"

sys.path.append(str(BENCHMARKS))
import gpu_check  # noqa: E402
import gpu_report  # noqa: E402
from gpu_check import Ran  # noqa: E402
from gpu_report import BARS, FAILED, NOT_RUN, OURS, PASSED, PEERS  # noqa: E402

H200 = "NVIDIA H200"
BOOK, *OTHERS = BARS


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gpu_check.Check:
    monkeypatch.delenv("FASTNN_MNIST", raising=False)
    return gpu_check.Check(
        SimpleNamespace(out=tmp_path, device="numpy", samples=None, seconds=100.0)
    )


def contest(name: str = BOOK, ours: float = 2.0, peer: float = 20.0, **more) -> dict:
    """A contest in which ours and all peers take so many microseconds a step."""
    us = {OURS: ours, **dict.fromkeys(PEERS, peer)}
    return {
        "name": name,
        "device": "cuda",
        "step": "resident",
        "samples": gpu_report.MNIST,
        "seconds": {who: [each] for who, each in us.items()},
        "us_a_step": us,
        "samples_per_second": {who: 1e7 / each for who, each in us.items()},
        "best_peer": "JAX",
        "ratio_to_best_peer": peer / ours,
        "flops_per_second": 3e13,
        "of_the_gemm_rate": 0.8,
        "forms": {},
        "failed": {},
        **more,
    }


def without(peer: str, **more) -> dict:
    lacking = contest(failed={peer: "ModuleNotFoundError: No module named 'jax'"}, **more)
    for key in ("seconds", "us_a_step", "samples_per_second"):
        del lacking[key][peer]
    return lacking


# The shell script
# -------------------------------------------------------------------------------------------------


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    # No GPU, wherever this runs.
    hidden = {"CUDA_VISIBLE_DEVICES": "-1", "GPU_CHECK_PYTHON": sys.executable}
    return subprocess.run(
        [str(SCRIPT), *arguments],
        env={**os.environ, **hidden, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_script_is_one() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert os.access(SCRIPT, os.X_OK)


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_it_says_how_it_is_called(arguments: list[str]) -> None:
    ran = run_script(*arguments)
    assert ran.returncode == 2
    assert "usage" in ran.stderr


def test_it_refuses_a_part_that_there_is_not(tmp_path: Path) -> None:
    ran = run_script(str(tmp_path), "bnech")
    assert ran.returncode == 2
    assert "'bnech' is no part" in ran.stderr


def test_without_a_gpu_all_parts_fail_and_nothing_is_claimed(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    ran = run_script(str(out), "bench", "tests")
    assert ran.returncode == 1, ran.stderr
    report = json.loads((out / "gpu_check.json").read_text())
    parts = {part["part"]: part for part in report["parts"]}
    assert list(parts) == ["tests", "bench"]  # in their own order
    for part in parts.values():
        assert part["state"] == FAILED
        assert part["why"].startswith("the device cannot be used: ")
        assert "'cuda'" in part["why"]
    assert PASSED not in (out / "gpu_check.md").read_text()
    assert ran.stdout.rstrip().endswith((out / "gpu_check.md").read_text().rstrip())


# The parts
# -------------------------------------------------------------------------------------------------


def test_without_mnist_the_accuracy_is_not_run(check: gpu_check.Check) -> None:
    assert gpu_check.accuracy(check, 1)["state"] == NOT_RUN


def test_a_part_that_breaks_does_not_keep_the_next_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(check: gpu_check.Check, seconds: float) -> list:
        raise KeyError("no such thing")

    def works(check: gpu_check.Check, seconds: float) -> list:
        return [gpu_check.result("bench", PASSED, "")]

    monkeypatch.setattr(gpu_check, "PARTS", {"tests": broken, "bench": works})
    monkeypatch.setattr(gpu_check, "machine", lambda installed: {"GPU": H200})
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", str(tmp_path), "--device", "numpy"])
    assert gpu_check.main() == 1
    parts = json.loads((tmp_path / "gpu_check.json").read_text())["parts"]
    assert [part["state"] for part in parts] == [FAILED, PASSED]
    assert "KeyError" in parts[0]["why"]


def test_no_name_of_a_test_differs_from_process_to_process(request: pytest.FixtureRequest) -> None:
    # pytest-xdist runs nothing at all where its processes see other names.
    names = [item.nodeid for item in request.session.items]
    assert [name for name in names if " at 0x" in name] == []


def test_a_command_past_its_limit_is_ended_with_what_it_started() -> None:
    child = "import time; print('child', flush=True); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    ran = gpu_check.run([sys.executable, "-c", code], 1)
    assert ran.status is None
    assert "past its limit of 1 s" in gpu_check.ended(ran, 1)


def test_the_tests_part_counts_and_names(
    check: gpu_check.Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests").mkdir()
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_check.os, "cpu_count", lambda: 1)

    def outcome(**files: str) -> dict:
        for name, text in files.items():
            (tmp_path / "tests" / f"test_{name}.py").write_text(text)
        (only,) = gpu_check.tests(check, 60)
        return only

    good = "import os\ndef test_good(): assert os.environ['FASTNN_REQUIRE'] == 'numpy'\n"
    fine = outcome(good=good)
    assert (fine["state"], fine["counts"]) == (PASSED, {"passed": 1})
    wanting = outcome(wanting="import there_is_no_such_package\n")
    assert wanting["state"] == PASSED
    assert "not run for want of there_is_no_such_package" in wanting["why"]
    bad = outcome(bad="def test_bad(): assert False\n")
    assert bad["state"] == FAILED
    assert bad["counts"] == {"passed": 1, "failed": 1, "error": 1}
    assert [line.split()[1] for line in bad["failures"]] == ["tests/test_bad.py::test_bad"]
    assert "test_bad.py" in (tmp_path / "tests.log").read_text()


def test_what_only_a_gpu_can_show_comes_first(
    check: gpu_check.Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def run(command: list[str], seconds: float, **environment: str) -> Ran:
        commands.append((command, seconds))
        return Ran(0, "3 passed in 1s", "")

    monkeypatch.setattr(gpu_check, "run", run)
    device, others = gpu_check.tests(check, 100)
    assert (device["part"], others["part"]) == ("tests: the device", "tests")
    _, (first, share), (second, rest) = commands
    assert gpu_check.ON_THE_DEVICE in first
    assert "tests" not in first
    assert {"tests", f"--ignore={gpu_check.ON_THE_DEVICE}"} <= set(second)
    assert 59 < share <= 60
    assert 99 < rest <= 100


@pytest.mark.parametrize(
    ("status", "said"),
    [(0, "no tests ran in 0.01s"), (2, "12 passed, 1 error in 3s"), (None, "12 passed in 3s")],
)
def test_a_suite_that_did_not_end_well_has_not_passed(status: int | None, said: str) -> None:
    assert gpu_check.judged_tests(Ran(status, said, said), 10)["state"] == FAILED


@pytest.mark.parametrize(
    ("status", "said", "state"),
    [
        (0, "========= ERROR SUMMARY: 0 errors", PASSED),
        (9, "========= ERROR SUMMARY: 3 errors", FAILED),
        (0, "", FAILED),  # it watched nothing
        (1, "the step was 'plain', not 'resident'", FAILED),
        (None, "", NOT_RUN),  # the tools are slow, and the time is short
        (None, "========= Invalid __shared__ read of size 16 bytes", FAILED),
        (1, "========= Error: Device not supported.", NOT_RUN),
    ],
)
def test_what_the_sanitizer_says(status: int | None, said: str, state: str) -> None:
    assert gpu_check.judged_sanitizer("memcheck", Ran(status, said, said), 9)["state"] == state


def test_the_parts_keep_to_the_time_there_is() -> None:
    parts, left = list(gpu_check.PARTS), 500.0
    for number, part in enumerate(parts):
        left -= gpu_check.limit(part, parts[number + 1 :], left)
    assert left == 0
    assert gpu_check.limit("tests", [], 500.0) == 500.0
    assert gpu_check.limit("tests", ["bench"], 10.0) >= 1


def test_a_network_that_takes_its_process_along_leaves_the_others(
    check: gpu_check.Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], seconds: float) -> Ran:
        names = command[command.index("--networks") + 1 :]
        done = names[:1] if BOOK in names else names
        crashed = names[1] if BOOK in names else None
        report = {"contests": [contest(n) for n in done], "left_out": [], "under_way": crashed}
        Path(command[command.index("--out") + 1]).write_text(json.dumps(report))
        return Ran(-11 if crashed else 0, "", "")

    monkeypatch.setattr(gpu_check, "run", run)
    (bench,) = gpu_check.bench(check, 100.0)
    assert [each["name"] for each in bench["contests"]] == [BOOK, *OTHERS[1:]]
    assert bench["state"] == FAILED
    assert f"{OTHERS[0]}: ended with -11" in bench["why"]


# The benchmark
# -------------------------------------------------------------------------------------------------


def test_the_benchmark_runs_on_the_cpu_and_names_the_peers_that_fail(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    arguments = ["--device", "numpy", "--samples", "203", "--seconds", "0", "--networks"]
    blocker = "import sys; sys.modules['torch'] = sys.modules['jax'] = None; sys.path[0] = "
    blocker += f"{str(BENCHMARKS)!r}; sys.argv = ['gpu_epoch.py', *sys.argv[1:]]; "
    blocker += "import gpu_epoch; sys.exit(gpu_epoch.main())"
    ran = subprocess.run(
        [sys.executable, "-c", blocker, "--out", str(out), *arguments, "784-12-10 b20"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    report = json.loads(out.read_text())
    (result,) = report["contests"]
    assert (report["under_way"], report["left_out"]) == (None, [])
    assert result["steps"] == 11
    assert set(result["failed"]) == {*PEERS, "GEMM rate"}
    assert list(result["seconds"]) == [OURS]
    assert result["step"] == "plain"
    assert result["ratio_to_best_peer"] is None


# The report
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "met"),
    [
        (contest(), True),
        (contest(ours=4.1, peer=100.0), False),
        (contest(ours=2.0, peer=9.9), False),
        (contest("784-100-10 b10 fp32"), None),
        (contest("784-4096-4096-4096-10 b4096 fp32"), True),
        (contest("784-4096-4096-4096-10 b4096 fp32", of_the_gemm_rate=0.7), False),
        (contest("784-4096-4096-4096-10 b4096 fp32", of_the_gemm_rate=None), None),
        # A peer that did not run might have been the best one.
        (without("JAX"), None),
        (without("JAX", ours=4.1), False),
        (without(OURS), False),
        # On the CPU, or on less than an epoch, nothing is asked.
        (contest(device="numba"), None),
        (contest(samples=1_003), None),
    ],
)
def test_bars(result: dict, met: bool | None) -> None:
    assert gpu_report.verdict(result).met is met


@pytest.mark.parametrize(
    ("contests", "left_out", "gpu", "state"),
    [
        ([contest()], [], H200, PASSED),
        ([contest(ours=5.0)], [], H200, FAILED),
        ([contest(ours=5.0)], [], "NVIDIA L4", PASSED),
        ([contest()], [OTHERS[0]], H200, FAILED),
        ([without(OURS)], [], "NVIDIA L4", FAILED),
        ([without("JAX")], [], H200, PASSED),
        ([], [], H200, FAILED),
    ],
)
def test_what_the_benchmarks_come_to(
    contests: list[dict], left_out: list[str], gpu: str, state: str
) -> None:
    assert gpu_report.judge(contests, left_out, gpu)[0] == state


def test_the_table_shows_what_is_missing_and_what_is_not_met() -> None:
    lines = gpu_report.table([contest(ours=4.5), without("JAX", name=OTHERS[0])])
    heads, _, first, second = (line.split(" | ") for line in lines[:4])
    assert len(heads) == len(first) == len(second)
    assert first[-1] == "**NO** |"
    assert second[-1] == "open |"
    assert second[heads.index("JAX, µs")] == "failed"
    text = "\n".join(lines)
    assert f"{BOOK}: bar not met: 4.44 times the best peer, not >= 5; 4.50 µs a step" in text
    assert f"{OTHERS[0]}: JAX failed: ModuleNotFoundError" in text
    assert f"{OTHERS[0]}: bar open: without JAX" in text


def test_the_summary_ends_with_the_parts() -> None:
    part = gpu_check.result
    report = {
        "device": "cuda",
        "machine": {"GPU": H200, "versions": {"numpy": "2.0", "jax": None}},
        "missing": ["jax: the peer JAX"],
        "parts": [
            part("tests", FAILED, "1 failed", failures=["FAILED tests/test_x.py::test_x"]),
            part("sanitizer", NOT_RUN, "compute-sanitizer is not installed"),
            part("bench", PASSED, "1 bars met", contests=[contest()]),
        ],
    }
    lines = gpu_report.summary(report).splitlines()
    assert lines[-3:] == [
        "| tests | **failed** | 0 | 1 failed |",
        "| sanitizer | **NOT RUN** | 0 | compute-sanitizer is not installed |",
        "| bench | passed | 0 | 1 bars met |",
    ]
    assert "- missing: jax: the peer JAX" in lines
    assert "- FAILED tests/test_x.py::test_x" in lines
