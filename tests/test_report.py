"""The benchmarks' report: the README's table is made by it, and what is no result is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "epoch-2026-11-21-amd-epyc-zen5-2-cores.json"

sys.path.append(str(ROOT / "benchmarks"))
import gpu_report  # noqa: E402
import networks  # noqa: E402
import report  # noqa: E402

STEP = {
    "network": "784-30-10",
    "batch_size": 10,
    "device": "numba",
    "step": "epoch",
    "samples_per_second": 2_000_000.0,
    "us_per_step": 5.0,
    "fraction_of_roof": 0.5,
}
KERNEL = {"device": "numpy", "us": 1.5, "fraction_of_roof": 0.25}
MATMUL = {**KERNEL, "kernel": "matmul", "shape": "10×784×30", "gflops": 64.0}
GATHER = {**KERNEL, "kernel": "gather uint8", "shape": "10×784", "gb_per_second": 32.0}
CONTEST = {
    "name": gpu_report.NETWORKS[0],
    "device": "cuda",
    "step": "resident",
    "samples": gpu_report.MNIST,
    "seconds": {"fastnn": [0.5], "JAX": [2.0]},
    "us_a_step": {"fastnn": 2.0, "JAX": 8.0},
    "samples_per_second": {"fastnn": 5e6, "JAX": 1.25e6},
    "best_peer": "JAX",
    "ratio_to_best_peer": 4.0,
    "flops_per_second": 1e12,
    "of_the_gemm_rate": None,
    "forms": {},
    "failed": {},
}


def timed(*rows: dict) -> dict:
    """What pytest-benchmark writes, with rows in the place of the committed ones."""
    benchmarks = [{"extra_info": row} for row in rows]
    return {**json.loads(RESULT.read_text()), "benchmarks": benchmarks}


def on_gpu(**more) -> dict:
    about = {"device": "cuda", "detail": "a GPU", "data": "MNIST", "date": "2026-11-01T10:00:00Z"}
    return {**about, "contests": [CONTEST], **more}


def write(folder: Path, result: object) -> str:
    file = folder / "result.json"
    file.write_text(result if isinstance(result, str) else json.dumps(result))
    return str(file)


# The tables
# -------------------------------------------------------------------------------------------------


def test_the_readme_shows_the_table_of_the_committed_result() -> None:
    _, _, *table = report.report(RESULT, report.read(RESULT))
    assert len(table) == 2 + 5
    assert "\n".join(["", *table, ""]) in (ROOT / "README.md").read_text()


def test_it_runs_as_a_module_and_says_where_and_when_first() -> None:
    command = [sys.executable, "-m", "benchmarks.report", str(RESULT)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    first, empty, *table = ran.stdout.splitlines()
    assert first == "AMD EPYC, 2 processors, Python 3.11.7, 21 November 2026"
    assert empty == ""
    assert table == report.report(RESULT, report.read(RESULT))[2:]


def test_steps_and_kernels_have_tables_of_their_own() -> None:
    lines = report.tables([STEP, MATMUL, {}, GATHER])
    assert [line for line in lines if not line.startswith("|--")] == [
        "| network | batch | device | step | samples/s | µs a step | of the roof |",
        "| 784-30-10 | 10 | numba | epoch | 2,000,000 | 5.00 | 50 % |",
        "",
        "| kernel | shape | device | µs | GB/s | GFLOP/s | of the roof |",
        "| matmul | 10×784×30 | numpy | 1.50 | — | 64.0 | 25 % |",
        "| gather uint8 | 10×784 | numpy | 1.50 | 32.0 | — | 25 % |",
    ]


def test_a_peer_that_was_not_there_has_a_dash() -> None:
    rows = [each["extra_info"] for each in json.loads(RESULT.read_text())["benchmarks"]]
    del rows[1]["samples_per_second"]["PyTorch"]
    after = format(rows[1]["samples_per_second"]["torch.compile"], ",.0f")
    assert f" | — | {after} | " in report.tables(rows)[3]


def test_peers_that_were_not_installed_are_named() -> None:
    rows = [each["extra_info"] for each in json.loads(RESULT.read_text())["benchmarks"]]
    rows[1]["not_installed"] = ["Thinc"]
    assert report.tables(rows)[-2:] == ["", "Not installed: Thinc."]


def test_a_run_on_a_gpu_has_its_own_table(tmp_path: Path, capsys) -> None:
    assert report.main([write(tmp_path, on_gpu())]) == 0
    said = capsys.readouterr().out
    assert said.startswith("a GPU, images: MNIST, 1 November 2026\n\n| network |")
    assert "4.00 (JAX)" in said


# What is no result
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (RESULT.read_text()[:2000], "is not JSON, or not all of it"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ([1, 2], "holds no benchmarks"),
        ({"epochs": []}, "holds no benchmarks"),
        ({"benchmarks": []}, "holds no benchmark of ours that was timed"),
        (timed({}), "holds no benchmark of ours that was timed"),
        ({"benchmarks": None}, "is not laid out as our results are"),
        ({"benchmarks": [{"extra_info": STEP}]}, "is not laid out as our results are"),
        (timed({**STEP, "us_per_step": "5"}), "is not laid out as our results are"),
        (timed({"ratio_to_best_peer": {}}), "is not laid out as our results are"),
        (on_gpu(contests=[{}]), "is not laid out as our results are"),
        ({"parts": []}, "is not laid out as our results are"),
    ],
)
def test_what_is_no_result_is_a_sentence_and_status_1(
    result: object, sentence: str, tmp_path: Path, capsys
) -> None:
    file = write(tmp_path, result)
    assert report.main([str(RESULT), file]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"report: {file} {sentence}")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("file", ["nowhere.json", "."])
def test_a_file_that_cannot_be_read_is_a_sentence(file: str, tmp_path: Path, capsys) -> None:
    assert report.main([str(tmp_path / file)]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--plto", "x.png"], [str(RESULT), "--plot"]])
def test_wrong_usage_is_status_2(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        report.main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m benchmarks.report" in capsys.readouterr().err


# The picture
# -------------------------------------------------------------------------------------------------


def test_it_draws_all_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    gpu, steps = tmp_path / "gpu", tmp_path / "steps"
    gpu.mkdir()
    steps.mkdir()
    files = [str(RESULT), write(gpu, on_gpu()), write(steps, timed(STEP, MATMUL))]
    picture = tmp_path / "samples.png"
    assert report.main([*files, "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("file", ["samples.sgn", "no/such/folder/samples.png"])
def test_a_picture_that_cannot_be_written_is_a_sentence(file: str, tmp_path: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    assert report.main([str(RESULT), "--plot", str(tmp_path / file)]) == 1
    assert "cannot be drawn" in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert report.main([str(RESULT), "--plot", str(tmp_path / "samples.png")]) == 1
    said = capsys.readouterr()
    assert said.err == "report: --plot needs matplotlib: pip install -e '.[plot]'\n"
    assert said.out == ""


def test_kernels_alone_are_not_drawn(tmp_path: Path, capsys) -> None:
    file = write(tmp_path, timed(MATMUL))
    assert report.main([file, "--plot", str(tmp_path / "samples.png")]) == 1
    assert "nothing to plot" in capsys.readouterr().err


# The networks
# -------------------------------------------------------------------------------------------------


def test_the_largest_network_is_for_gpus() -> None:
    assert set(networks.for_device("cuda:1")) - set(networks.for_device("numpy")) == {"huge"}


def test_what_is_measured_is_found_by_its_networks_name_and_can_be_reported(
    tmp_path: Path, capsys
) -> None:
    pytest.importorskip("pytest_benchmark")
    file = tmp_path / "result.json"
    command = [sys.executable, "-m", "pytest", "benchmarks", "-q", "-p", "no:cacheprovider"]
    command += ["-k", "video and numpy and (step or matmul or hadamard)"]
    # Within pytest-xdist it would time nothing.
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    ran = subprocess.run(
        [*command, "--benchmark-json", str(file)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout.decode()
    found = json.loads(file.read_text())["benchmarks"]
    assert sorted((each["group"], each["param"]) for each in found) == [
        ("hadamard 32×16", "hadamard 784-16-16-10 b32 numpy"),
        ("matmul 32×784×16", "matmul 784-16-16-10 b32 numpy"),
        ("step 784-16-16-10 b32", "784-16-16-10 b32 numpy plain"),
    ]
    assert all(each["extra_info"]["fraction_of_roof"] > 0 for each in found)
    assert report.main([str(file)]) == 0
    said = capsys.readouterr().out
    assert "| 784-16-16-10 | 32 | numpy | plain |" in said
    assert "| matmul | 32×784×16 | numpy |" in said
