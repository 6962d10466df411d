"""What is kept of the machine, and samples per second as Markdown below the table."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Keep what bears on speed, and leave out what identifies one machine."""
    for key in ("node", "release", "processor", "python_build"):
        machine_info.pop(key, None)
    machine_info["cpu"] = {
        key: machine_info["cpu"].get(key)
        for key in ("brand_raw", "count", "hz_advertised_friendly")
    }
    machine_info["environment"] = {
        key: value
        for key, value in sorted(os.environ.items())
        if key.startswith(("OPENBLAS_", "OMP_", "MKL_", "NUMBA_"))
    }


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    session = getattr(config, "_benchmarksession", None)
    rows = [bench.extra_info for bench in session.benchmarks] if session else []
    rows = [row for row in rows if "samples_per_second" in row]
    if not rows:
        return
    names = list(rows[0]["samples_per_second"])
    terminalreporter.section("samples per second")
    heads = ["network", "batch", *names, "numba to the best peer", "of the sgemm rate"]
    terminalreporter.line("| " + " | ".join(heads) + " |")
    terminalreporter.line("|---" * len(heads) + "|")
    for row in rows:
        rates = [row["samples_per_second"][name] for name in names]
        used = rates[0] * row["flops_per_sample"] / row["sgemm_flops_per_second"]
        cells = [row["network"], row["batch_size"], *(f"{rate:,.0f}" for rate in rates)]
        ratio = row["ratio_to_best_peer"]["numba"]
        cells += [f"{ratio:.2f} ({row['best_peer']})", f"{100 * used:.0f} %"]
        terminalreporter.line("| " + " | ".join(map(str, cells)) + " |")
