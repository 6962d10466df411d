"""What is kept of the machine, a network's name for -k, and the report's tables at the end."""

from __future__ import annotations

import os
from typing import Any

import pytest
import report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let -k find a network by its name, which its test's id does not have."""
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if "network" in params:
            item.extra_keyword_matches.add(params["network"])


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
    lines = report.tables(bench.extra_info for bench in session.benchmarks) if session else []
    if lines:
        terminalreporter.section("benchmarks")
        for line in lines:
            terminalreporter.line(line)
