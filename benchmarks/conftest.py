"""Below pytest-benchmark's table: samples per second, as Markdown."""

from __future__ import annotations

from typing import Any


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
