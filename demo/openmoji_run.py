"""`python -m demo.openmoji_run`: trains emoji from four conditions on this machine, and shows what each of them adds."""

import argparse
import json
import sys
from pathlib import Path

import yaml
from rich.table import Table

from adapter_api.document import Document, read, validate
from adapter_api.training import TrainingConfig
from adapter_trainer.history import METRICS_FILE, read_history
from adapter_trainer.run_page import PAGE
from adapter_trainer.train import main as train
from atj.terminal import results, say
from demo import openmoji

CONDITIONS = {
    "text": "caption: its name",
    "label_to_token": "label: its group",
    "embed_to_token": "embedding: EfficientNet-lite0's features",
    "adapters.line_art": "reference: its line art",
}
SHOWN = 3
"""Held-out emoji in the picture grid."""


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
        show(output, groups)
    return code


def configuration(file: Path, data: Path) -> dict[str, object]:
    """The configuration with its data in `data`, and with the first held-out emoji as rows of the grid."""
    settings = read(file).data
    params = settings["data"]["params"]
    params["data_root_path"] = str(data)
    settings["model"]["params"]["text_config"]["encoders"][0]["tokenizer"] = str(data / "tokenizer")
    lines = (data / openmoji.HELD_OUT).read_text(encoding="utf-8").splitlines()
    settings["sampling"]["rows"] = [_row(line, data) for line in lines[:: max(1, len(lines) // SHOWN)][:SHOWN]]
    validate(TrainingConfig, Document(str(file), settings))
    return dict(settings)


def _row(line: str, data: Path) -> dict[str, object]:
    _, caption, group, features, lines = line.split("\t")
    return {"caption": caption, "group": int(group), "features": str(data / features), "lines": str(data / lines)}


def show(output: Path, groups: list[str]) -> None:
    """Prints what each condition adds on held-out emoji, and leaves it in summary.json."""
    measured = [line for line in read_history(output / METRICS_FILE) if "evaluation" in line][-1]
    figures = measured["evaluation"]
    table = Table("condition", "loss without it", box=None, pad_edge=False)
    for name, title in CONDITIONS.items():
        table.add_row(title, f"{figures[f'gain.{name}']:+.1%}")
    summary = {"step": measured["step"], "groups": groups, **figures}
    (output.parent / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    results().print(table)
    say(
        results(),
        f"Loss on held-out emoji at step {measured['step']}: {figures['validation_loss']:.4f}\n"
        f"Pictures, curves: {output / PAGE}",
    )


if __name__ == "__main__":
    sys.exit(main())
