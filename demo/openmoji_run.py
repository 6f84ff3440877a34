"""`python -m demo.openmoji_run`: trains emoji from four conditions on this machine, and shows what each of them adds."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from adapter_api.document import Document, read, validate
from adapter_api.training import TrainingConfig
from adapter_trainer.history import METRICS_FILE, read_history
from adapter_trainer.run_page import PAGE
from adapter_trainer.sample import Sampler, load
from adapter_trainer.train import main as train
from atj.terminal import results, say
from demo import openmoji, openmoji_pictures
from demo.openmoji_pictures import ALL, NONE


@dataclass(frozen=True)
class Condition:
    """One of the four."""

    column: str
    """Of the data; `caption` for text."""
    title: str
    what: str


CONDITIONS = {
    "adapters.line_art": Condition("lines", "line art", "reference image, by an IP-Adapter"),
    "embed_to_token": Condition("features", "embedding", "EfficientNet-lite0's features of it, by embed_to_token"),
    "text": Condition("caption", "caption", "its name, by a text encoder"),
    "label_to_token": Condition("group", "group", "label, by label_to_token"),
}
"""By the name that the evaluation gives them."""
DRAWN, SHOWN, SHOWN_BY_TRAINING = 64, 12, 3
"""Held-out emoji that are drawn, that the picture shows of them, and in the grid of the run's own page."""
PICTURE = "held-out.png"


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.openmoji_run", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/openmoji.yaml"), help="training configuration")
    parser.add_argument("--output", type=Path, default=Path("openmoji-output"), help="folder for everything")
    parser.add_argument("--steps", type=int, help="optimizer steps; by default the configuration's")
    parser.add_argument("--emoji", type=int, help="use so many only")
    arguments = parser.parse_args()
    data, output = arguments.output / "data", arguments.output / "run"
    say(results(), f"Drawing emoji and computing their features: {data}")
    groups = openmoji.write(data, arguments.emoji)
    file = arguments.output / "training.yaml"
    file.write_text(yaml.safe_dump(configuration(arguments.config, data)), encoding="utf-8")
    flags = ["--config", str(file), "--output_dir", str(output), "--resume_from_checkpoint", "latest"]
    code = train([*flags, *(["--max_train_steps", str(arguments.steps)] if arguments.steps else [])])
    if code == 0:
        show(output, data, groups)
    return code


def configuration(file: Path, data: Path) -> dict[str, object]:
    """The configuration with its data in `data`, and with the first held-out emoji as rows of the grid."""
    settings = read(file).data
    params = settings["data"]["params"]
    params["data_root_path"] = str(data)
    settings["model"]["params"]["text_config"]["encoders"][0]["tokenizer"] = str(data / "tokenizer")
    lines = (data / openmoji.HELD_OUT).read_text(encoding="utf-8").splitlines()
    settings["sampling"]["rows"] = [
        _row(line, data) for line in lines[:: max(1, len(lines) // SHOWN_BY_TRAINING)][:SHOWN_BY_TRAINING]
    ]
    validate(TrainingConfig, Document(str(file), settings))
    return dict(settings)


def _row(line: str, data: Path) -> dict[str, int | str]:
    _, caption, group, features, lines = line.split("\t")
    return {"caption": caption, "group": int(group), "features": str(data / features), "lines": str(data / lines)}


def show(output: Path, data: Path, groups: list[str]) -> None:
    """Prints what each condition adds on held-out emoji, and leaves it in summary.json, and pictures of them."""
    measured = [line for line in read_history(output / METRICS_FILE) if "evaluation" in line][-1]
    sampler = load(output / f"checkpoint-{measured['step']}")
    settings = sampler.config.evaluation
    held_out = (data / openmoji.HELD_OUT).read_text(encoding="utf-8").splitlines()
    count = len(held_out) if settings is None else min(len(held_out), settings.samples)
    say(
        results(),
        f"Drawing {min(DRAWN, len(held_out))} of {len(held_out)} held-out emoji, with and without each condition",
    )
    distances = draw(sampler, held_out, data, output.parent / PICTURE)
    summary = {
        "step": measured["step"], "groups": groups, "held_out": count, **measured["evaluation"],
        "drawn": min(DRAWN, len(held_out)), "distance": {title: round(value, 4) for title, value in distances.items()},
    }  # fmt: skip
    (output.parent / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    results().print(table(summary))
    say(
        results(),
        f"Loss on {count} held-out emoji at step {measured['step']}: {summary['validation_loss']:.4f}\n"
        f"Distance: root mean square of the difference between {summary['drawn']} held-out emoji, as they are drawn, and "
        f"what they are, in % of white; from all four {distances[ALL]:.1%}, from nothing {distances[NONE]:.1%}\n"
        f"Pictures: {output.parent / PICTURE}\nCurves: {output / PAGE}",
    )


def table(summary: Mapping[str, Any]) -> Table:
    """PURE: what is lost without each condition, the others being there."""
    shown = Table("without its", "", "loss", "distance", box=None, pad_edge=False)
    whole = summary["distance"][ALL]
    for name, condition in CONDITIONS.items():
        change = summary["distance"][f"without {condition.title}"] / whole - 1
        shown.add_row(condition.title, condition.what, f"{summary[f'gain.{name}']:+.1%}", f"{change:+.1%}")
    return shown


def draw(sampler: Sampler, held_out: list[str], data: Path, file: Path) -> dict[str, float]:
    """Draws held-out emoji, evenly over all, into a picture; how far what was drawn is from what they are."""
    titles = {condition.column: condition.title for condition in CONDITIONS.values()}
    chosen = held_out[:: max(1, len(held_out) // DRAWN)][:DRAWN]
    rows = [_row(line, data) for line in chosen]
    drawn = openmoji_pictures.draw(sampler, rows, titles)
    emoji = openmoji_pictures.pictures([data / line.split("\t")[0] for line in chosen])
    lines = openmoji_pictures.pictures([Path(str(row["lines"])) for row in rows])
    every = max(1, len(chosen) // SHOWN)
    columns = {"line art": lines, "the emoji": emoji, **drawn}
    openmoji_pictures.side_by_side({title: each[::every][:SHOWN] for title, each in columns.items()}).save(file)
    return openmoji_pictures.distances(drawn, emoji)


if __name__ == "__main__":
    sys.exit(main())
