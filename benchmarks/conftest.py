"""What is kept of the machine, and samples per second as Markdown below the table."""

from __future__ import annotations

from typing import Any


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Keep what bears on speed, and leave out what identifies one machine."""
    for key in ("node", "release", "processor", "python_build"):
        machine_info.pop(key, None)
    machine_info["cpu"] = {
        key: machine_info["cpu"].get(key)
        for key in ("brand_raw", "count", "hz_advertised_friendly")
    }


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    session = getattr(config, "_benchmarksession", None)
    rows = [bench.extra_info for bench in session.benchmarks] if session else []
    rows = [row for row in rows if "samples_per_second" in row]
    if not rows:
        return
    terminalreporter.section("samples per second")
    terminalreporter.line("| network | batch | device | samples/s | NumPy by hand | ratio |")
    terminalreporter.line("|---|---|---|---|---|---|")
    for row in rows:
        terminalreporter.line(
            f"| {row['network']} | {row['batch_size']} | {row['device']} "
            f"| {row['samples_per_second']:,.0f} | {row['by_hand_samples_per_second']:,.0f} "
            f"| {row['ratio_to_by_hand']:.2f} |"
        )
