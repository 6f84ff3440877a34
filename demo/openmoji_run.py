"""`python -m demo.openmoji_run`: trains emoji from four conditions on this machine, and shows what each of them adds."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.table import Table
from torch import Tensor

from adapter_api.document import Document, read, validate
from adapter_api.layout import HISTORY_FILE
from adapter_api.training import TrainingConfig
from adapter_trainer.reporting.history import read_history
from adapter_trainer.reporting.page_writer import PAGE
from adapter_trainer.sampling.sample import Row, Sampler, load
from adapter_trainer.train import main as train
from atj.terminal import results, say
from demo import openmoji, openmoji_pictures
from demo.openmoji_judge import EmojiJudge, Worth
from demo.openmoji_network import Network
from demo.openmoji_pictures import selections


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
DRAWN, SHOWN, SHOWN_BY_TRAINING = 96, 12, 3
"""Held-out emoji that are drawn, that the picture shows of them, and in the grid of the run's own page."""
EXAMPLES = 800
"""Emoji of training that the judge learns groups from."""
THEMSELVES = "the emoji"
"""Title of what the drawn are to be."""
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
    settings["sampling"]["rows"] = [_row(line, data) for line in evenly(lines, SHOWN_BY_TRAINING)]
    validate(TrainingConfig, Document(str(file), settings))
    return dict(settings)


def evenly(lines: Sequence[str], count: int) -> list[str]:
    """PURE: so many of all, or all, at the same distance from each other."""
    count = min(count, len(lines))
    return [lines[number * len(lines) // count] for number in range(count)]


def _row(line: str, data: Path) -> dict[str, int | str]:
    _, caption, group, features, lines = line.split("\t")
    return {"caption": caption, "group": int(group), "features": str(data / features), "lines": str(data / lines)}


def show(output: Path, data: Path, groups: list[str]) -> None:
    """Prints what each condition adds on held-out emoji, and leaves it in summary.json, and pictures of them."""
    measured = [line for line in read_history(output / HISTORY_FILE) if "evaluation" in line][-1]
    sampler = load(output / f"checkpoint-{measured['step']}")
    settings = sampler.config.evaluation
    held_out = (data / openmoji.HELD_OUT).read_text(encoding="utf-8").splitlines()
    count = len(held_out) if settings is None else min(len(held_out), settings.samples)
    chosen = evenly(held_out, DRAWN)
    say(results(), f"Drawing {len(chosen)} of {len(held_out)} held-out emoji from all conditions, some, and none")
    worth = draw(sampler, chosen, data, output.parent / PICTURE)
    summary = {
        "step": measured["step"], "groups": groups, "held_out": count, **measured["evaluation"], "drawn": len(chosen),
        "worth": {title: {name: round(value, 4) for name, value in asdict(each).items()} for title, each in worth.items()},
    }  # fmt: skip
    (output.parent / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    results().print(table(summary))
    conditions = "".join(f"{each.title}: {each.what}\n" for each in CONDITIONS.values())
    say(
        results(),
        f"{conditions}Loss: by how much it grows on {count} held-out emoji at step {measured['step']}; with all four it is "
        f"{summary['validation_loss']:.4f}\n"
        f"Distance, likeness and group are of {len(chosen)} held-out emoji as they are drawn: root mean square of the difference "
        "from the emoji, in % of white; cosine of network features with the emoji's, over that with other emoji's; share of "
        "which a judge reads the right group\n"
        f"Pictures: {output.parent / PICTURE}\nCurves: {output / PAGE}",
    )


def table(summary: Mapping[str, Any]) -> Table:
    """PURE: what is drawn, and lost, with which conditions."""
    shown = Table("from", box=None, pad_edge=False)
    for head in ("loss", "distance", "likeness", "group"):
        shown.add_column(head, justify="right")
    gains = {f"without {condition.title}": summary[f"gain.{name}"] for name, condition in CONDITIONS.items()}
    titles = {condition.column: condition.title for condition in CONDITIONS.values()}
    for title in [*selections(titles), THEMSELVES]:
        worth = Worth(**summary["worth"][title])
        loss = f"{gains[title]:+.1%}" if title in gains else ""
        shown.add_row(title, loss, f"{worth.distance:.1%}", f"{worth.likeness:.2f}", f"{worth.group:.0%}")
    return shown


def draw(sampler: Sampler, lines: Sequence[str], data: Path, file: Path) -> dict[str, Worth]:
    """Draws held-out emoji, some of them into a picture; what the drawn ones are worth, and the emoji themselves."""
    titles = {condition.column: condition.title for condition in CONDITIONS.values()}
    rows: list[Row] = [_row(line, data) for line in lines]
    drawn = openmoji_pictures.draw(sampler, rows, titles)
    emoji, groups = pictures_and_groups(lines, data)
    strokes = openmoji_pictures.pictures([Path(str(row["lines"])) for row in rows])
    every = max(1, len(lines) // SHOWN)
    columns = {"line art": strokes, THEMSELVES: emoji, **drawn}
    openmoji_pictures.side_by_side({title: each[::every][:SHOWN] for title, each in columns.items()}).save(file)
    known = (data / openmoji.PAIRS).read_text(encoding="utf-8").splitlines()
    judge = EmojiJudge.taught(Network(), *pictures_and_groups(evenly(known, EXAMPLES), data))
    return judge.worth({**drawn, THEMSELVES: emoji}, emoji, groups)


def pictures_and_groups(lines: Sequence[str], data: Path) -> tuple[Tensor, Tensor]:
    """Of lines of a pairs file: [N, 3, H, W] in 0..1, [N] of int64."""
    cells = [line.split("\t") for line in lines]
    return openmoji_pictures.pictures([data / each[0] for each in cells]), torch.tensor(
        [int(each[2]) for each in cells]
    )


if __name__ == "__main__":
    sys.exit(main())
