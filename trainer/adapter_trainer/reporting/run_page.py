"""report.html: a run on one page that needs nothing else: curves, pictures, configuration, where the time went.

`python -m adapter_trainer.reporting.run_page OUTPUT` makes it from what lies in an output folder, at any time. Training has this done
by a process of its own, which takes neither its time nor its memory.
"""

import base64
import io
import json
import os
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from adapter_api.checkpoint import step_of
from adapter_api.layout import HISTORY_FILE, LOGS_FOLDER, PROGRESS_FILE, SAMPLES_FOLDER, TRAINING_FILE
from adapter_trainer.files import replace_text
from adapter_trainer.reporting import charts
from adapter_trainer.reporting.charts import Curve
from adapter_trainer.reporting.history import Line, read_history
from adapter_trainer.reporting.page_writer import PAGE

CONFIGURATION = Path(LOGS_FOLDER) / TRAINING_FILE
MAX_PICTURES = 12
WIDEST_PICTURE = 1600
"""Pixels; wider grids are shown smaller, as the files in `samples` stay what they are."""
PLAIN_BYTES = 300_000
"""A picture up to this size goes in as it is."""
MAX_POINTS = 2000
"""In a curve: a page is to open at once."""


@dataclass(frozen=True)
class Picture:
    """A grid of one step."""

    step: int
    data: str
    """As a data: address."""


def write(output: Path) -> Path:
    """Writes the page of an output folder; its path."""
    page = output / PAGE
    page.parent.mkdir(parents=True, exist_ok=True)
    replace_text(page, render(output))
    return page


def render(output: Path) -> str:
    """The page, as HTML."""
    history = read_history(output / HISTORY_FILE)
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("report.html").render(
        title=title_of(output, history),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        progress=_json(output / PROGRESS_FILE),
        figures=figures(history),
        starts=[{"step": line["step"], **line["start"]} for line in history if "start" in line],
        charts={name: Markup(svg) for name, svg in _charts(history).items()},  # noqa: S704 - drawn here
        parts=mean_parts(history),
        pauses=total_pauses(history),
        evaluation=next((line["evaluation"] for line in reversed(history) if "evaluation" in line), {}),
        pictures=pictures(output / SAMPLES_FOLDER),
        checkpoints=checkpoints(output),
        configuration=_text(output / CONFIGURATION),
    )


# --- figures --------------------------------------------------------------------------------------------------------


def figures(history: list[Line]) -> dict[str, str]:
    """PURE: what stands at the top, by name."""
    reports = _reports(history)
    if not reports:
        return {}
    tail = reports[-max(1, len(reports) // 10) :]
    found = {
        "time in steps and pauses": duration(sum(seconds for _, seconds in stretches(history))),
        "computed on": device_of(history),
        "cost": cost(history),
        "loss, mean of the last tenth": f"{sum(line['loss'] for line in tail) / len(tail):.4g}",
        "images a second, median": f"{_median([line['images_per_second'] for line in reports]):.4g}",
    }
    if shares := [line["mfu"] for line in reports if "mfu" in line]:
        found["model FLOPs utilization, median"] = f"{_median(shares):.1%}"
    waits = mean_parts(history)
    if waits:
        found["waiting for data"] = f"{waits.get('data', 0.0) / (sum(waits.values()) or 1):.1%} of a step"
    return found


def title_of(output: Path, history: list[Line]) -> str:
    """The job's name; of a run without one, its folder's."""
    names = [line["start"].get("job") for line in history if "start" in line]
    return next((str(name) for name in reversed(names) if name), output.resolve().name)


def stretches(history: list[Line]) -> list[tuple[dict[str, Any], float]]:
    """PURE: every part of the run from one start to the next: what it was computed with, and its seconds."""
    found: list[tuple[dict[str, Any], float]] = []
    last = 0
    for line in history:
        if "start" in line:
            found.append((line["start"], 0.0))
            last = line["step"]
        elif found:
            start, seconds = found[-1]
            if "seconds" in line:
                seconds += sum(line["seconds"].values()) * max(1, line["step"] - last)
                last = line["step"]
            found[-1] = start, seconds + sum(line.get("pauses", {}).values())
    return found


def device_of(history: list[Line]) -> str:
    """PURE: of the newest start."""
    starts = [line["start"] for line in history if "start" in line]
    return f"{starts[-1]['processes']} x {starts[-1]['device']}" if starts else "not reported"


def cost(history: list[Line]) -> str:
    """PURE: hours of all processes together."""
    parts = stretches(history)
    hours = sum(start["processes"] * seconds for start, seconds in parts) / 3600
    is_cpu = any(" cores" in start["device"] for start, _ in parts)
    return f"{hours:.3g} {'process-hours' if is_cpu else 'GPU-hours'}"


def duration(seconds: float) -> str:
    """PURE: as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def mean_parts(history: list[Line]) -> dict[str, float]:
    """PURE: seconds of a step by part, the mean over all steps."""
    sums: dict[str, float] = {}
    steps, last = 0, 0
    for line in history:
        if "start" in line:
            last = line["step"]
        elif "seconds" in line:
            count, last = max(1, line["step"] - last), line["step"]
            steps += count
            for part, seconds in line["seconds"].items():
                sums[part] = sums.get(part, 0.0) + seconds * count
    return {part: seconds / steps for part, seconds in sums.items()}


def total_pauses(history: list[Line]) -> dict[str, tuple[int, float]]:
    """PURE: how often training paused for each reason, and for how many seconds in all."""
    found: dict[str, tuple[int, float]] = {}
    for line in history:
        for name, seconds in line.get("pauses", {}).items():
            times, total = found.get(name, (0, 0.0))
            found[name] = (times + 1, total + seconds)
    return found


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _reports(history: list[Line]) -> list[Line]:
    return [line for line in history if "loss" in line]


# --- curves ---------------------------------------------------------------------------------------------------------


def _charts(history: list[Line]) -> dict[str, str]:
    reports = thinned(_reports(history))
    starts = [line["step"] for line in history if "start" in line and line["step"] > 0]
    found: dict[str, str] = {}
    if reports:
        found["Loss"] = charts.lines({"loss": _curve(reports, "loss")}, "loss", starts, smooth=True)
        speed = {"images a second": _curve(reports, "images_per_second")}
        found["Speed"] = charts.lines(speed, "images a second", starts)
        found["Learning rate"] = charts.lines({"rate": _curve(reports, "learning_rate")}, "learning rate", starts)
    if shares := _curve(reports, "mfu"):
        found["Utilization"] = charts.lines({"MFU": shares}, "share of the peak", starts)
    if timed := [line for line in reports if "seconds" in line]:
        names = list(timed[-1]["seconds"])
        parts = {name: [(line["step"], 1000 * line["seconds"].get(name, 0.0)) for line in timed] for name in names}
        found["Where a step's time goes"] = charts.areas(parts, "ms a step")
    measured = [line for line in history if "evaluation" in line]
    for name in dict.fromkeys(name for line in measured for name in line["evaluation"]):
        curve = [(line["step"], line["evaluation"][name]) for line in measured if name in line["evaluation"]]
        found[f"Evaluation: {name}"] = charts.lines({name: curve}, name, starts)
    return found


def _curve(lines: list[Line], name: str) -> Curve:
    return [(line["step"], line[name]) for line in lines if name in line]


def thinned(lines: list[Line]) -> list[Line]:
    """PURE: at most MAX_POINTS of the lines, evenly, the last one among them."""
    step = -(-len(lines) // MAX_POINTS)
    return lines[::-1][:: max(1, step)][::-1]


# --- pictures and texts ---------------------------------------------------------------------------------------------


def pictures(folder: Path) -> list[Picture]:
    """The grids in a folder, newest first: all, or the newest and others evenly before it."""
    found = {
        int(match[1]): path for path in folder.glob("step-*.png") if (match := re.fullmatch(r"step-(\d+)", path.stem))
    }
    steps = sorted(found, reverse=True)
    chosen = steps[:: max(1, -(-len(steps) // MAX_PICTURES))]
    return [Picture(step, _data_address(found[step])) for step in chosen]


def checkpoints(output: Path) -> list[tuple[str, str]]:
    """The checkpoints in the output folder, newest first: name, and link from the page to its card."""
    steps = {step: path for path in output.glob("checkpoint-*") if (step := step_of(path.name)) is not None}
    return [
        (steps[step].name, f"../{steps[step].name}/{'README.md' if (steps[step] / 'README.md').is_file() else ''}")
        for step in sorted(steps, reverse=True)
    ]


def _data_address(path: Path) -> str:
    content, kind = path.read_bytes(), "png"
    with Image.open(io.BytesIO(content)) as image:
        if len(content) > PLAIN_BYTES:
            image.thumbnail((WIDEST_PICTURE, 100 * WIDEST_PICTURE))
            target = io.BytesIO()
            image.convert("RGB").save(target, "WEBP", quality=85)
            content, kind = target.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


if __name__ == "__main__":
    os.nice(10)
    print(write(Path(sys.argv[1])))
