"""The regression gate: what it calls slower, and that it runs two revisions."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
FILE = ROOT / "benchmarks" / "gate.py"
spec = importlib.util.spec_from_file_location("gate", FILE)
gate = importlib.util.module_from_spec(spec)
sys.modules["gate"] = gate  # a NamedTuple looks for its module
spec.loader.exec_module(gate)


def rounds(factor, noise, seed, n=11):
    """Seconds of pairs: the second takes `factor` as long; a round's noise is common to both."""
    rng = np.random.default_rng(seed)
    common = np.exp(rng.normal(0, 0.3, n))
    own = np.exp(rng.normal(0, noise, (n, 2)))
    return [(c * a, c * factor * b) for c, (a, b) in zip(common, own, strict=True)]


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_on_a_machine_whose_speed_varies_by_a_third_a_tenth_is_told_from_nothing(noise):
    slower = [gate.judge(rounds(1.1, noise, seed), 0.03).slower for seed in range(200)]
    same = [gate.judge(rounds(1.0, noise, seed), 0.03).slower for seed in range(200)]
    assert np.mean(slower) > 0.9
    assert np.mean(same) <= 0.05


def test_faster_is_not_slower():
    verdict = gate.judge(rounds(0.8, 0.02, 0), 0.03)
    assert not verdict.slower
    assert verdict.ratio == pytest.approx(1.25, rel=0.05)
    assert verdict.spread[0] <= verdict.ratio <= verdict.spread[1]


def test_without_a_revision_it_is_the_newest_results():
    files = (ROOT / "benchmarks/results").glob("epoch-*.json")
    results = [json.loads(file.read_text()) for file in files]
    by_date = {each["datetime"]: each["commit_info"]["id"] for each in results}
    assert gate.baseline() == by_date[max(by_date)]


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(FILE), *arguments], capture_output=True, text=True, timeout=120
    )


in_a_repository = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="no git repository"
)


@in_a_repository
def test_two_revisions_train_in_turns():
    small = ["--network", "6-4-3", "--samples", "50", "--rounds", "2", "--device", "numpy"]
    done = run("HEAD", "HEAD", *small, "--slower-by", "100")
    assert done.returncode == 0, done.stderr
    first, second, verdict = done.stdout.splitlines()
    assert first.startswith("HEAD: ")
    assert "plain step" in second
    assert "in 2 rounds): not slower" in verdict


@in_a_repository
def test_a_revision_that_there_is_not_is_a_sentence():
    done = run("no-such-revision")
    assert done.returncode == 1
    assert done.stderr.startswith("gate: ")
    assert "Traceback" not in done.stderr
