"""Throughput and p95 of each URI over time, with the moves, from `trial.shifts.summary`."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Okabe and Ito: told apart by who sees few colours, and by their lines in a black and white print.
STYLES = (("#0072B2", "-", "o"), ("#D55E00", "--", "s"), ("#009E73", ":", "^"), ("#000000", "-.", "D"))


def draw(told: dict[str, Any], title: str, *paths: Path) -> None:
    """Into files; the ending of their names says what they are (.svg, .png)."""
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 6), layout="constrained")
    try:
        for (uri, windows), (colour, line, marker) in zip(told["series"].items(), STYLES, strict=False):
            at = [window["at"] for window in windows]
            look = {"color": colour, "linestyle": line, "marker": marker, "markersize": 3.5, "linewidth": 1.6}
            above.plot(at, [window["per_second"] for window in windows], label=f"/{uri}", **look)
            late = [None if window["p95"] is None else window["p95"] * 1000 for window in windows]
            below.plot(at, [float("nan") if value is None else value for value in late], label=f"/{uri}", **look)
            failed = [window for window in windows if window["failed"]]
            if failed:
                above.plot(
                    [w["at"] for w in failed], [w["per_second"] for w in failed], "x", color="#CC0000", markersize=11
                )
        above.set_ylabel("answers per second")
        above.set_ylim(bottom=0)
        below.set_ylabel("p95, ms")
        below.set_ylim(bottom=0)
        below.set_xlabel("seconds")
        below.set_xlim(0, told["seconds"])
        for axes in (above, below):
            axes.grid(visible=True, alpha=0.25)
            for move in told["moves"]:
                axes.axvline(move["unbound"], color="#555555", linewidth=0.9, linestyle=(0, (4, 2)))
        _name(above, told)
        above.legend(loc="lower left", frameon=True)
        kept = told["books"]
        failures = sum(kept["failed"].values())
        figure.suptitle(f"{title}\n{kept['sent']} requests, {failures} failed, {kept['twice']} run twice", fontsize=11)
        for path in paths:
            figure.savefig(path, dpi=150)
    finally:
        plt.close(figure)


def _name(axes: Axes, told: dict[str, Any]) -> None:
    """Above the panel: what each line is. Moves that are close together share a label."""
    labels: list[tuple[float, list[str]]] = []
    for move in told["moves"]:
        text = f"/{move['key']} → {move['to']}"
        if labels and move["unbound"] - labels[-1][0] < told["seconds"] / 8:
            labels[-1][1].append(text)
        else:
            labels.append((move["unbound"], [text]))
    for at, texts in labels:
        axes.annotate(
            "\n".join(texts), (at, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
            fontsize=8, ha="center", va="bottom", color="#333333",
        )  # fmt: skip
