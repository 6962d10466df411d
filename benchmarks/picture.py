"""Samples per second by network and contender, as grouped bars. Needs the extra "plot"."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

WIDTH = 0.8  # of a network's bars together


class Group(NamedTuple):
    """A network's bars, and what is written at them.

    Attributes
    ----------
    network
        What stands below them.
    rates
        Samples per second by contender.
    ratios
        To the best peer, of those contenders that are no peers themselves.
    """

    network: str
    rates: dict[str, float]
    ratios: dict[str, float]


class Panel(NamedTuple):
    """What was measured in one go, and what stands above it."""

    title: str
    groups: list[Group]


def draw(panels: list[Panel], file: Path) -> None:
    """Draw the panels one below the other into a file, whose ending says which format."""
    # Without pyplot, so that no window system is asked for.
    from matplotlib.figure import Figure

    widest = max(len(panel.groups) for panel in panels)
    figure = Figure(figsize=(3 + 1.8 * widest, 4 * len(panels)), layout="constrained")
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        _draw(axes, panel)
    figure.savefig(file, dpi=120)


def _draw(axes: Any, panel: Panel) -> None:
    groups = panel.groups
    contenders = list(dict.fromkeys(who for group in groups for who in group.rates))
    width = WIDTH / len(contenders)
    for number, who in enumerate(contenders):
        mine = [(place, group) for place, group in enumerate(groups) if who in group.rates]
        bars = axes.bar(
            [place + (number + 0.5) * width - WIDTH / 2 for place, _ in mine],
            [group.rates[who] for _, group in mine],
            width,
            label=who,
        )
        ratios = [group.ratios.get(who) for _, group in mine]
        labels = [f"{ratio:.2f}×" if ratio else "" for ratio in ratios]
        axes.bar_label(bars, labels, rotation=90, padding=2, fontsize=7)
    axes.set_yscale("log")
    axes.margins(y=0.15)  # room for what stands on the bars
    axes.set_ylabel("samples per second; × the best peer", fontsize=8)
    axes.set_xticks(range(len(groups)), [group.network for group in groups], fontsize=8)
    axes.set_title(panel.title, fontsize=8)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
