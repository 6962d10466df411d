"""What a run on a GPU came to, as Markdown, and against what was asked of it.

Needs nothing but Python, so that a result can be shown wherever it lies.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from networks import NETWORKS as SHAPES

OURS = "fastnn"
PEERS = ("PyTorch", "PyTorch CUDA graph", "torch.compile", "JAX")

PASSED, FAILED, NOT_RUN = "passed", "failed", "NOT RUN"

Result = dict[str, Any]


class Bar(NamedTuple):
    """What is asked of a network on the GPU below; None where nothing is."""

    ratio: float  # to the best peer, at least
    microseconds: float | None = None  # a step, at most
    of_gemm: float | None = None  # of the rate of large products, at least


BARS_ARE_FOR = "H200"
MNIST = 60_000
# In the order in which they are measured: what there is no time for is at the end.
BARS: dict[str, Bar | None] = {
    f"{SHAPES['book'].title} fp32": Bar(ratio=5.0, microseconds=4.0),
    f"{SHAPES['video'].title} fp32": Bar(ratio=4.0, microseconds=6.0),
    f"{SHAPES['wide'].title} fp32": Bar(ratio=1.2),
    f"{SHAPES['wide'].title} tf32": Bar(ratio=1.2),
    f"{SHAPES['huge'].title} fp32": Bar(ratio=1.0, of_gemm=0.75),
    f"{SHAPES['huge'].title} tf32": Bar(ratio=1.0, of_gemm=0.75),
    "784-100-10 b32 fp32": None,
    f"{SHAPES['book100'].title} fp32": None,
    f"{SHAPES['mid'].title} fp32": None,
}
NETWORKS = tuple(BARS)


class Verdict(NamedTuple):
    """Whether a bar is met; None while something is missing that could decide it otherwise."""

    met: bool | None
    why: str


def bar_of(contest: Result) -> Bar | None:
    """Return what is asked of a contest: on a GPU, over epochs of MNIST's size."""
    real = contest["device"].startswith("cuda") and contest["samples"] == MNIST
    return BARS.get(contest["name"]) if real else None


def verdict(contest: Result) -> Verdict:
    """Hold a contest against its bar."""
    bar = bar_of(contest)
    if bar is None:
        return Verdict(None, "")
    if OURS in contest["failed"]:
        return Verdict(False, f"{OURS}: {contest['failed'][OURS]}")
    figures = [
        (contest["ratio_to_best_peer"], ">=", bar.ratio, "times the best peer"),
        (contest["us_a_step"][OURS], "<=", bar.microseconds, "µs a step"),
        (contest["of_the_gemm_rate"], ">=", bar.of_gemm, "of the GEMM rate"),
    ]
    missed, unknown = [], []
    for figure, sign, limit, what in figures:
        if limit is None:
            continue
        if figure is None:
            unknown.append(f"{what} unknown")
        elif figure < limit if sign == ">=" else figure > limit:
            missed.append(f"{figure:.2f} {what}, not {sign} {limit:g}")
    # Without a peer that might be the best one, a ratio can fall short but not suffice.
    unknown += [f"without {peer}" for peer in PEERS if peer not in contest["seconds"]]
    if missed:
        return Verdict(False, "; ".join(missed + unknown))
    return Verdict(None if unknown else True, "; ".join(unknown))


def table(contests: list[Result]) -> list[str]:
    """Return a line a network: µs a step of everyone, then our own figures and the bar."""
    heads = ["network", "step", *(f"{who}, µs" for who in (OURS, *PEERS)), "samples/s"]
    heads += ["to the best peer", "TFLOP/s", "of GEMM", "bar", "met"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += ["| " + " | ".join(_row(contest)) + " |" for contest in contests]
    return lines + _notes(contests)


def _row(contest: Result) -> list[str]:
    cells = [contest["name"], contest["step"] or "—"]
    for who in (OURS, *PEERS):
        cells.append(_figure(contest["us_a_step"].get(who), "{:,.2f}", who in contest["failed"]))
    cells.append(_figure(contest["samples_per_second"].get(OURS), "{:,.0f}"))
    cells.append(_figure(contest["ratio_to_best_peer"], f"{{:.2f}} ({contest['best_peer']})"))
    flops = contest["flops_per_second"]
    cells.append(_figure(flops and flops / 1e12, "{:.2f}"))
    part = contest["of_the_gemm_rate"]
    cells.append(_figure(part and 100 * part, "{:.0f} %"))
    bar = bar_of(contest)
    if bar is None:
        return [*cells, "—", "—"]
    asked = [f"{bar.ratio:g}×"]
    asked += [f"{bar.microseconds:g} µs"] if bar.microseconds else []
    asked += [f"{100 * bar.of_gemm:g} % of GEMM"] if bar.of_gemm else []
    met = {True: "yes", False: "**NO**", None: "open"}[verdict(contest).met]
    return [*cells, ", ".join(asked), met]


def _figure(value: float | None, form: str, failed: bool = False) -> str:
    if value is None:
        return "failed" if failed else "—"
    return form.format(value)


def _notes(contests: list[Result]) -> list[str]:
    """Whatever a reader of the table must know and a cell cannot hold: once, and of which."""
    said: dict[str, list[str]] = {}
    for contest in contests:
        remarks = [f"{who}: {form}" for who, form in contest["forms"].items()]
        remarks += [f"{who} failed: {why}" for who, why in contest["failed"].items()]
        met, why = verdict(contest)
        if met is not True and why:
            remarks.append(f"bar {'not met' if met is False else 'open'}: {why}")
        for remark in remarks:
            said.setdefault(remark, []).append(contest["name"])
    lines = []
    for remark, names in said.items():
        everywhere = len(names) == len(contests)
        lines.append(f"- {'all' if everywhere else ', '.join(names)}: {remark}")
    return ["", *lines] if lines else []


def judge(contests: list[Result], left_out: list[str], gpu: str | None) -> tuple[str, str]:
    """Return what the benchmarks' part comes to, and why.

    A bar that is not met fails it on the GPU that the bars are for; elsewhere bars are only shown.
    """
    ours = [c["name"] for c in contests if OURS in c["failed"]]
    verdicts = [verdict(contest) for contest in contests if bar_of(contest)]
    missed = sum(each.met is False for each in verdicts)
    still_open = sum(each.met is None for each in verdicts)
    met = len(verdicts) - missed - still_open
    why = [f"{met} bars met, {missed} not met, {still_open} open"]
    if ours:
        why.append(f"{OURS} failed on {', '.join(ours)}")
    if left_out:
        why.append(f"no time for {', '.join(left_out)}")
    here = BARS_ARE_FOR in (gpu or "")
    if not here:
        why.append(f"the bars are for an {BARS_ARE_FOR}")
    failed = ours or left_out or not contests or (here and missed)
    return FAILED if failed else PASSED, "; ".join(why)


def summary(report: Result) -> str:
    """Return the whole report as Markdown, the parts last: the end is what is read first."""
    machine, lines = report["machine"], [f"# fastnn's device {report['device']}, checked", ""]
    lines += [f"- {key}: {value}" for key, value in machine.items() if not isinstance(value, dict)]
    versions = machine.get("versions", {})
    lines.append("- versions: " + ", ".join(f"{k} {v or 'missing'}" for k, v in versions.items()))
    lines += [f"- missing: {line}" for line in report["missing"]]
    for part in report["parts"]:
        lines += _details(part)
    lines += ["", "## Parts", "", "| part | result | seconds | |", "|---|---|---|---|"]
    for part in report["parts"]:
        state = part["state"] if part["state"] == PASSED else f"**{part['state']}**"
        lines.append(f"| {part['part']} | {state} | {part['seconds']:.0f} | {_cell(part['why'])} |")
    return "\n".join([*lines, ""])


def _details(part: Result) -> list[str]:
    lines = []
    if part.get("contests"):
        lines = table(part["contests"])
    elif part.get("trajectory"):
        lines = trajectory(part["trajectory"])
    elif part.get("failures"):
        lines = [f"- {name}" for name in part["failures"][:20]]
        more = len(part["failures"]) - 20
        lines += [f"- and {more} more, in the JSON"] if more > 0 else []
    return ["", f"## {part['part']}", "", *lines] if lines else []


def trajectory(rows: list[Result]) -> list[str]:
    """Return NumPy's course and the device's side by side."""
    heads = ["training", "cost, NumPy", "cost, device", "difference", "of weights and biases"]
    heads += ["NumPy's own, to float64", "at most"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [row["name"], f"{row['cost_numpy']:.6f}", f"{row['cost']:.6f}"]
        cells += [
            f"{row[key]:.1e}" for key in ("cost_difference", "difference", "numpy_to_float64")
        ]
        cells.append("—" if row["most"] is None else f"{row['most']:.0e}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cell(text: str) -> str:
    """Return a sentence as fits a table's cell."""
    text = " ".join(text.split()).replace("|", "/")
    return text if len(text) <= 400 else text[:399] + "…"
