"""Curves of a run as SVG that a page can hold."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any

# Where the home folder cannot be written, matplotlib would look for all fonts anew at every start.
os.environ.setdefault("MPLCONFIGDIR", str(Path(gettempdir()) / f"matplotlib-{os.getuid()}"))

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Curve = Sequence[tuple[float, float]]
"""Steps and values."""
WIDTH, HEIGHT = 7.0, 2.6
"""Inches."""
_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and is small
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def lines(curves: Mapping[str, Curve], unit: str, starts: Sequence[float] = (), *, smooth: bool = False) -> str:
    """Curves over steps in one chart; a dotted line where the run was started again.

    Args:
        curves: by name.
        unit: of the values.
        starts: steps at which the run went on.
        smooth: draw a running mean over each curve, and the curve itself faintly.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(unit)
        for (name, curve), colour in zip(curves.items(), _cycle(len(curves)), strict=True):
            steps, values = [step for step, _ in curve], [value for _, value in curve]
            marker = "o" if len(curve) < 30 else None
            if smooth and len(curve) >= 20:
                axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
                axes.plot(steps, running_mean(values, len(values) // 20), color=colour, label=name)
            else:
                axes.plot(steps, values, color=colour, marker=marker, markersize=3, label=name)
        for step in starts:
            axes.axvline(step, color="#888888", linestyle=":", linewidth=1)
        if len(curves) > 1:
            axes.legend(framealpha=0.8, ncols=3, fontsize=8)
        return _svg(figure)


def areas(curves: Mapping[str, Curve], unit: str) -> str:
    """Parts of a whole over steps, one upon the other; all curves have the same steps."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(unit)
        steps = [step for step, _ in next(iter(curves.values()))]
        values = [[value for _, value in curve] for curve in curves.values()]
        axes.stackplot(steps, values, labels=list(curves), colors=_cycle(len(curves)), linewidth=0)
        axes.legend(framealpha=0.8, ncols=3, fontsize=8)
        return _svg(figure)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """PURE: the mean of each value and the `width` ones before it."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    firsts = [max(0, index - width) for index in range(len(values))]
    return [(sums[index + 1] - sums[first]) / (index + 1 - first) for index, first in enumerate(firsts)]


def _cycle(count: int) -> list[str]:
    return [_COLOURS[index % len(_COLOURS)] for index in range(count)]


def _axes(unit: str) -> tuple[Figure, Axes]:
    figure = Figure((WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    return figure, axes


def _svg(figure: Figure) -> str:
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    text = target.getvalue()
    return text[text.index("<svg") :]
