"""What benchmarks came to, as Markdown and as a picture.

    python -m benchmarks.report RESULT.json…
    python -m benchmarks.report RESULT.json… --plot samples.png     needs the extra "plot"

A result is what ``pytest benchmarks --benchmark-json RESULT.json`` writes, or one of the JSON files
of gpu_check.sh. Ends with 1, and a sentence, if there is no such result in a file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import gpu_report
import picture

Row = dict[str, Any]  # a benchmark's extra_info
# What a result that is laid out in another way is found out by.
FOREIGN = (AttributeError, LookupError, TypeError, ValueError, ZeroDivisionError)


class ReportError(Exception):
    """A sentence that says why there is no report."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description="What benchmarks came to, as Markdown."
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw samples per second")
    asked = parser.parse_args(arguments)
    try:
        results = {file: read(file) for file in asked.results}
        reports = [report(file, result) for file, result in results.items()]
        if asked.plot:
            plot(list(results.values()), asked.plot)
    except ReportError as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print("\n\n".join("\n".join(lines) for lines in reports))
    return 0


def read(file: Path) -> Row:
    """Return what a file holds, if it is a result at all."""
    try:
        result = json.loads(file.read_bytes())
    except OSError as error:
        raise ReportError(f"{file} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{file} is not JSON, or not all of it: {error}.") from None
    if not isinstance(result, dict) or not {"benchmarks", "contests", "parts"} & result.keys():
        raise ReportError(
            f"{file} holds no benchmarks: it is neither from pytest --benchmark-json nor from "
            "gpu_check.sh."
        )
    return result


def report(file: Path, result: Row) -> list[str]:
    """Return a result as Markdown; on what it was measured, and when, stands above."""
    try:
        if "parts" in result:
            return gpu_report.summary(result).splitlines()
        lines = (
            gpu_report.table(result["contests"])
            if "contests" in result
            else tables(each["extra_info"] for each in result["benchmarks"])
        )
        above = heading(result) if lines else ""
    except FOREIGN as error:
        raise ReportError(
            f"{file} is not laid out as our results are ({type(error).__name__}: {error})."
        ) from error
    if not lines:
        raise ReportError(f"{file} holds no benchmark of ours that was timed.")
    return [above, "", *lines]


def heading(result: Row) -> str:
    """Return on what machine and on which day something was measured."""
    if "parts" in result:
        machine = result["machine"]
        return f"{machine['GPU']}, {day(machine['date'])}"
    if "contests" in result:
        said = [result["detail"], f"images: {result['data']}"]
        return ", ".join([*said, day(result["date"])])
    machine = result["machine_info"]
    said = [f"{machine['cpu']['brand_raw']}, {machine['cpu']['count']} processors"]
    said += [f"{key}={value}" for key, value in machine.get("environment", {}).items()]
    return ", ".join([*said, f"Python {machine['python_version']}", day(result["datetime"])])


def day(moment: str) -> str:
    """2026-11-21T10:11:09+00:00 -> 21 November 2026."""
    date = datetime.fromisoformat(moment)
    return f"{date.day} {date:%B %Y}"


def tables(rows: Iterable[Row]) -> list[str]:
    """Return a table for each kind of benchmark among the rows."""
    rows, lines = list(rows), []
    for ours, make in ((is_epoch, epochs), (is_step, steps), (is_kernel, kernels)):
        mine = [row for row in rows if ours(row)]
        lines += ["", *make(mine)] if mine else []
    return lines[1:]


def is_epoch(row: Row) -> bool:
    return "ratio_to_best_peer" in row


def is_step(row: Row) -> bool:
    return "us_per_step" in row and not is_epoch(row)


def is_kernel(row: Row) -> bool:
    return "kernel" in row


def epochs(rows: list[Row]) -> list[str]:
    """Return a line a network: samples per second of everyone, and our first device's figures."""
    ours = list(dict.fromkeys(who for row in rows for who in row["ratio_to_best_peer"]))
    names = list(dict.fromkeys(who for row in rows for who in row["samples_per_second"]))
    first = ours[0]
    heads = ["network", "batch", *(f"`{who}`" if who in ours else who for who in names)]
    cells = [
        [
            row["network"],
            row["batch_size"],
            *(figure("{:,.0f}", row["samples_per_second"].get(who)) for who in names),
            f"{row['ratio_to_best_peer'][first]:.2f} ({row['best_peer']})",
            percent(of_sgemm(row, first)),
        ]
        for row in rows
    ]
    lines = markdown([*heads, f"`{first}` to the best peer", "of the sgemm rate"], cells)
    missing = dict.fromkeys(who for row in rows for who in row.get("not_installed", []))
    return [*lines, "", f"Not installed: {', '.join(missing)}."] if missing else lines


def of_sgemm(row: Row, device: str) -> float:
    flops = row["samples_per_second"][device] * row["flops_per_sample"]
    return flops / row["sgemm_flops_per_second"]


def steps(rows: list[Row]) -> list[str]:
    """Return a line a network, device and step."""
    heads = ["network", "batch", "device", "step", "samples/s", "µs a step", "of the roof"]
    cells = [
        [
            *(row[key] for key in ("network", "batch_size", "device", "step")),
            f"{row['samples_per_second']:,.0f}",
            f"{row['us_per_step']:,.2f}",
            percent(row["fraction_of_roof"]),
        ]
        for row in rows
    ]
    return markdown(heads, cells)


def kernels(rows: list[Row]) -> list[str]:
    """Return a line a kernel, shape and device."""
    heads = ["kernel", "shape", "device", "µs", "GB/s", "GFLOP/s", "of the roof"]
    cells = [
        [
            *(row[key] for key in ("kernel", "shape", "device")),
            f"{row['us']:,.2f}",
            figure("{:,.1f}", row.get("gb_per_second")),
            figure("{:,.1f}", row.get("gflops")),
            percent(row["fraction_of_roof"]),
        ]
        for row in rows
    ]
    return markdown(heads, cells)


def markdown(heads: list[str], rows: list[list[Any]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def figure(form: str, value: float | None) -> str:
    return "—" if value is None else form.format(value)


def percent(part: float) -> str:
    return f"{100 * part:.0f} %"


def plot(results: list[Row], file: Path) -> None:
    """Draw samples per second, a panel for each result."""
    panels = [picture.Panel(heading(result), groups_of(result)) for result in results]
    panels = [panel for panel in panels if panel.groups]
    if not panels:
        raise ReportError("there is nothing to plot: no result has samples per second.")
    try:
        picture.draw(panels, file)
    except ModuleNotFoundError:
        raise ReportError("--plot needs matplotlib: pip install -e '.[plot]'") from None
    except (OSError, ValueError) as error:  # a folder that there is not; an unknown format
        raise ReportError(f"{file} cannot be drawn: {error}.") from None


def groups_of(result: Row) -> list[picture.Group]:
    """Return the bars for a result that has a report."""
    contests = [*result.get("contests", [])]
    contests += [each for part in result.get("parts", []) for each in part.get("contests", [])]
    groups = [
        picture.Group(
            below(each["name"], each["of_the_gemm_rate"], "GEMM"),
            each["samples_per_second"],
            {gpu_report.OURS: each["ratio_to_best_peer"]},
        )
        for each in contests
        if each["samples_per_second"]
    ]
    rows = [each["extra_info"] for each in result.get("benchmarks", [])]
    for row in filter(is_epoch, rows):
        first, title = next(iter(row["ratio_to_best_peer"])), name_of(row)
        under = below(title, of_sgemm(row, first), "the sgemm rate")
        groups.append(picture.Group(under, row["samples_per_second"], row["ratio_to_best_peer"]))
    by_network: dict[str, dict[str, float]] = {}
    for row in filter(is_step, rows):
        mine = by_network.setdefault(name_of(row), {})
        mine[f"{row['device']} {row['step']}"] = row["samples_per_second"]
    return groups + [picture.Group(title, rates, {}) for title, rates in by_network.items()]


def name_of(row: Row) -> str:
    return f"{row['network']} b{row['batch_size']}"


def below(title: str, part: float | None, roof: str) -> str:
    return title if part is None else f"{title}\n{percent(part)} of {roof}"


if __name__ == "__main__":
    sys.exit(main())
