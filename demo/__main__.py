"""`python -m demo`: four adapters on a frozen base, trained on this machine, and what each of them is worth.

A small base learns to draw ten emoji, and is frozen. One job on two nodes then trains an IP-Adapter, label_to_token,
embed_to_token and a caption's word on it. Judges that have seen training's pictures alone read what is drawn in colours that
training has never seen: with all conditions, without each of them, and with each of another picture.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from adapter_api.document import Document, read, validate
from adapter_api.job import AdapterTrainingJob
from adapter_api.progress import ExitCode
from adapter_trainer.sampling import sample
from atj.boundary import explain
from atj.machine.local_run import Ending, run_job
from atj.machine.progress_display import display_on
from atj.machine.run import forking, report
from atj.results.export import write_base
from atj.results.sample import at_hand
from atj.storage.committed import Committed
from atj.storage.embedded_store import buckets_of, embedded_store, with_endpoint
from atj.storage.output_folder import OutputFolder
from atj.terminal import results, say
from demo import emoji, emoji_picture
from demo.emoji_drawing import ALL, CONDITIONS, REAL, drawn, judged
from demo.emoji_judge import Obeyed

HOME = "demo-output"
"""What the jobs' files call the output folder."""
LEAST_LABEL, LEAST_LEAN, LEAST_WORD = 0.85, 0.8, 0.9
MOST_COLOUR = 1 / 3
"""Of the error with another's reference."""
PICTURE, SUMMARY = "samples.png", "summary.json"


@dataclass
class Stopwatch:
    """Seconds that each part took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times the block."""
        begin = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begin, 1)


def main() -> int:
    """The exit code: 0 when every condition is obeyed, and none is without it."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="Train adapters on a frozen base, and judge.")
    parser.add_argument("--base", type=Path, default=Path("configs/quickstart-base.yaml"), help="job of the base")
    parser.add_argument("--job", type=Path, default=Path("configs/quickstart.yaml"), help="job of the adapters")
    parser.add_argument("--output", type=Path, default=Path(HOME), help="folder for everything")
    arguments = parser.parse_args()
    try:
        folder = OutputFolder(arguments.output)
        return demonstrate(placed(arguments.base, folder.path), placed(arguments.job, folder.path), folder)
    except KeyboardInterrupt:
        print("Interrupted. To continue: the same command again.", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the boundary
        return explain(error)


def placed(file: Path, output: Path) -> AdapterTrainingJob:
    """The job of a file, with what it reads in the output folder, wherever that is."""
    document = read(file)
    home = f"{HOME}/"

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(each) for key, each in value.items()}
        if isinstance(value, list):
            return [moved(each) for each in value]
        return f"{output.resolve()}/{value.removeprefix(home)}" if str(value).startswith(home) else value

    return validate(
        AdapterTrainingJob, Document(document.source, moved(document.data), document.lines, document.faults)
    )


def demonstrate(base: AdapterTrainingJob, job: AdapterTrainingJob, folder: OutputFolder) -> int:
    """Draws the data, trains base and adapters, judges, and leaves summary.json and samples.png."""
    console, watch = results(), Stopwatch()
    data = folder.path / "data"
    folder.create()
    with watch.part("dataset"):
        emoji.write(data)
    with folder.held(), embedded_store(folder.store, buckets_of(base) | buckets_of(job)) as endpoint:
        base, job = with_endpoint(base, endpoint), with_endpoint(job, endpoint)
        say(console, "1/3 A small base learns to draw ten emoji, from nothing. From here on it is frozen.", "bold")
        with watch.part("base"):
            _make_base(base, OutputFolder(folder.path / "base-run"), folder.path / "base")
        steps = f"{job.spec.nodes} nodes train four adapters on it: a reference picture's colours, which emoji, its lean, a word"
        say(console, f"2/3 Your job, configs/quickstart.yaml: {steps}.", "bold")
        with watch.part("training"):
            ending = _train(job, folder, embedded_in="s3")
        report(console, ending, Committed(job.spec.output.s3), folder, is_embedded=True)
        committed = Committed(job.spec.output.s3)
        newest = committed.entry(None)
        checkpoint = committed.uri_of(newest)
    # Threads that wait for each other's small shares stand still where something else has a core.
    torch.set_num_threads(1)
    say(console, "3/3 Drawing in colours that training has never seen, with and without each condition.", "bold")
    with watch.part("judging"), at_hand(str(folder.path), None, None, with_models=False) as (weights, _):
        sampler = sample.load(weights)
        pictures = emoji.pictures(emoji.STYLES, emoji.HELD_OUT_STYLES, emoji.SEED)
        found = judged(drawn(sampler, pictures, data), pictures, data)
        emoji_picture.draw(sampler, data).save(folder.path / PICTURE)
    summary: dict[str, Any] = {
        **figures(found),
        "imagesJudged": len(pictures),
        "steps": newest.step,
        "seconds": {**watch.seconds, "total": round(sum(watch.seconds.values()), 1)},
        "checkpoint": checkpoint,
        "drawnFrom": {
            title: {name: round(value, 4) for name, value in asdict(each).items()} for title, each in found.items()
        },
    }
    (folder.path / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    console.print(table(found))
    say(console, f"{len(pictures)} pictures of {emoji.HELD_OUT_STYLES} pairs of colours, in {summary['seconds']['total']:.0f} s. "
                 f"Everything in one picture: {folder.path / PICTURE}")  # fmt: skip
    say(console, next_commands(folder.path))
    if faults := disobedience(found):
        say(console, "The conditions are not obeyed as they should be: " + "; ".join(faults), "red")
        return ExitCode.FAILED
    return ExitCode.COMPLETE


def figures(found: dict[str, Obeyed]) -> dict[str, float]:
    """PURE: the most telling ones, by name; controls are with another picture's condition."""
    own = found[ALL]
    return {
        "accuracy": round(own.label, 4),
        "controlAccuracy": round(found["another label"].label, 4),
        "leanCorrelation": round(own.lean, 4),
        "colourError": round((own.ground + own.ink) / 2, 4),
        "controlColourError": round(_colour(found["another reference"]), 4),
        "wordAccuracy": round(own.word, 4),
        "judgeAccuracyOnRealPictures": round(found[REAL].label, 4),
    }


def _colour(of: Obeyed) -> float:
    return (of.ground + of.ink) / 2


def disobedience(found: dict[str, Obeyed]) -> list[str]:
    """PURE: what is not as it should be; empty when every condition is obeyed."""
    own, error = found[ALL], _colour(found[ALL])
    allowed = MOST_COLOUR * _colour(found["another reference"])
    checks = {
        f"label {own.label:.1%}, at least {LEAST_LABEL:.0%} is expected": own.label >= LEAST_LABEL,
        f"lean {own.lean:.2f}, at least {LEAST_LEAN} is expected": own.lean >= LEAST_LEAN,
        f"colour error {error:.3f}, at most {allowed:.3f} is expected, a third of another reference's": error
        <= allowed,
        f"word {own.word:.1%}, at least {LEAST_WORD:.0%} is expected": own.word >= LEAST_WORD,
    }
    return [message for message, holds in checks.items() if not holds]


def table(found: dict[str, Obeyed]) -> Table:
    """PURE: a line for each condition."""
    shown = Table("condition", "read by", "judged", box=None, pad_edge=False)
    for head in ("given", "dropped", "another's", "real"):
        shown.add_column(head, justify="right")
    for title, name, what, form in (
        ("reference", "ground", "ground, error", ".3f"),
        ("reference", "ink", "ink, error", ".3f"),
        ("label", "label", "shows that emoji", ".1%"),
        ("lean", "lean", "correlation", ".2f"),
        ("word", "word", "frame as asked", ".1%"),
    ):
        values = [getattr(found[each], name) for each in (ALL, f"no {title}", f"another {title}", REAL)]
        shown.add_row(title, CONDITIONS[title].module, what, *(format(value, form) for value in values))
    return shown


def next_commands(output: Path) -> str:
    """PURE: what to try now."""
    return (
        "Next:\n"
        f"  atj sample {output} --label fish --condition reference=YOUR-PHOTO.jpg --condition lean=0.5 --prompt framed --size 128\n"
        f"  atj export {output} --to adapters\n"
        "  atj run configs/quickstart.yaml   # after changing something in it"
    )


def _make_base(job: AdapterTrainingJob, folder: OutputFolder, base: Path) -> None:
    """Trains the base, and writes it where the adapters' job reads it; what is there already stays."""
    folder.create()
    ending = _train(job, folder, embedded_in="../s3")
    if ending.state == "already complete" and (base / "unet").is_dir():
        return
    shutil.rmtree(base, ignore_errors=True)
    with at_hand(str(folder.path), None, None, with_models=False) as (weights, _):
        write_base(weights, None, base)
    say(results(), f"  atj export {folder.path} --what base --to {base}")


def _train(job: AdapterTrainingJob, folder: OutputFolder, embedded_in: str) -> Ending:
    with forking(job, folder) as (record, server), display_on(results()) as display:
        ending = run_job(job, folder, record, display, embedded_in=embedded_in, server=server)
    if ending.state == "interrupted":
        raise KeyboardInterrupt
    return ending


if __name__ == "__main__":
    sys.exit(main())
