"""`python -m demo`: trains digits from their labels on this machine, and shows that the labels are obeyed.

A judge that has seen nothing of the training set reads pictures that were drawn for given labels: by the trained model,
and by a control that was trained in the same way on permuted labels.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from adapter_agent.staging import upload_folder
from adapter_agent.store import Store
from adapter_api.document import read, validate
from adapter_api.job import AdapterTrainingJob
from adapter_api.progress import ExitCode
from adapter_trainer import grids, sample
from atj.boundary import explain
from atj.committed import Committed
from atj.conditions import rows_of
from atj.embedded_store import buckets_of, embedded_store, with_endpoint
from atj.errors import refusal
from atj.local_run import Ending, run_job
from atj.output_folder import OutputFolder
from atj.progress_display import display_on
from atj.run import forking, report
from atj.terminal import results, say
from demo import digits
from demo.judge import Judge

LEAST_ACCURACY = 0.90
MOST_CONTROL_ACCURACY = 0.25
"""Guessing reaches 0.10."""
JUDGED_PER_CLASS = 30
SHOWN_PER_CLASS = 8
_SCALE = 8
"""Pixels that a pixel of the grid is enlarged to."""


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
    """The exit code: 0 when the labels are obeyed, and only by the model that was trained on true ones."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="Train digits from their labels, and judge.")
    parser.add_argument("--job", type=Path, default=Path("configs/quickstart.yaml"), help="job to run")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for everything")
    arguments = parser.parse_args()
    try:
        return demonstrate(validate(AdapterTrainingJob, read(arguments.job)), OutputFolder(arguments.output))
    except KeyboardInterrupt:
        print("Interrupted. To continue: the same command again.", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the boundary
        return explain(error)


def demonstrate(job: AdapterTrainingJob, folder: OutputFolder) -> int:
    """Prepares the data, trains model and control, judges both, and leaves summary.json and samples.png."""
    console, watch = results(), Stopwatch()
    job = _from_storage(job)
    seen, held_out = digits.load()
    judge = Judge(held_out)
    control = _control(job)
    folder.create()
    with folder.held(), embedded_store(folder.store, buckets_of(job)) as endpoint:
        job, control = with_endpoint(job, endpoint), with_endpoint(control, endpoint)
        with watch.part("dataset"):
            _upload_dataset(job, folder.path / "dataset", seen)
        with watch.part("training"):
            ending = _train(job, folder, embedded_in="s3")
        report(console, ending, Committed(job.spec.output.s3), folder, is_embedded=True)
        say(console, "Control: the same job on permuted labels.")
        with watch.part("control"):
            _train(control, OutputFolder(folder.path / "control"), embedded_in="../s3")
        with watch.part("sampling"):
            images, labels = _draw(Committed(job.spec.output.s3))
            control_images, control_labels = _draw(Committed(control.spec.output.s3))
        committed = Committed(job.spec.output.s3)
        newest = committed.entry(None)
    shown = images.unflatten(0, (digits.CLASSES, JUDGED_PER_CLASS))[:, :SHOWN_PER_CLASS].flatten(0, 1)
    grids.grid(shown, SHOWN_PER_CLASS, _SCALE).save(folder.path / "samples.png")
    accuracy = judge.accuracy(images.squeeze(1).numpy(), labels)
    control_accuracy = judge.accuracy(control_images.squeeze(1).numpy(), control_labels)
    summary = {
        "accuracy": round(accuracy, 4),
        "controlAccuracy": round(control_accuracy, 4),
        "imagesJudged": len(images),
        "judgeAccuracyOnRealDigits": round(judge.accuracy(seen.images, seen.labels), 4),
        "steps": newest.step,
        "seconds": {**watch.seconds, "total": round(sum(watch.seconds.values()), 1)},
        "checkpoint": committed.uri_of(newest),
    }
    (folder.path / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in summary.items():
        table.add_row(name, str(value))
    console.print(table)
    say(console, f"Pictures: {folder.path / 'samples.png'}\nSummary: {folder.path / 'summary.json'}")
    if accuracy < LEAST_ACCURACY or control_accuracy > MOST_CONTROL_ACCURACY:
        say(
            console,
            f"The labels are not obeyed as they should be: accuracy of at least {LEAST_ACCURACY} and control accuracy "
            f"of at most {MOST_CONTROL_ACCURACY} are expected.",
            "red",
        )
        return ExitCode.FAILED
    return ExitCode.COMPLETE


def _from_storage(job: AdapterTrainingJob) -> AdapterTrainingJob:
    """The job without a folder of this machine, so that it reads the data from object storage as pods do."""
    if job.spec.data is None:
        return job
    data = job.spec.data.model_copy(update={"folder": None})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"data": data})})


def _control(job: AdapterTrainingJob) -> AdapterTrainingJob:
    """The same job on the permuted labels, with an output of its own."""
    plain = job.model_dump(mode="json")
    plain["spec"]["training"]["data"]["params"]["pairs_file_path"] = digits.PERMUTED_PAIRS
    plain["spec"]["output"]["s3"]["uri"] += "-control"
    return AdapterTrainingJob.model_validate(plain)


def _upload_dataset(job: AdapterTrainingJob, folder: Path, seen: digits.Digits) -> None:
    """Puts the dataset where the job reads it; what is there already is not sent again."""
    if job.spec.data is None or job.spec.data.s3 is None:
        raise refusal("the demo's job needs spec.data.s3, where the dataset is put before training")
    place = job.spec.data.s3
    digits.write(folder, seen)
    upload_folder(Store.connect(place.uri, place.endpoint_url, place.region), folder)


def _train(job: AdapterTrainingJob, folder: OutputFolder, embedded_in: str) -> Ending:
    with forking(job, folder) as (record, server), display_on(results()) as display:
        ending = run_job(job, folder, record, display, embedded_in=embedded_in, server=server)
    if ending.state == "interrupted":
        raise KeyboardInterrupt
    return ending


def _draw(committed: Committed) -> tuple[torch.Tensor, np.ndarray]:
    """Pictures [classes * JUDGED_PER_CLASS, 1, H, W] from the newest checkpoint, and the labels they were drawn for."""
    entry = committed.entry(None)
    with tempfile.TemporaryDirectory(prefix="demo-") as scratch:
        folder = Path(scratch) / "checkpoint"
        committed.fetch(entry.step, folder, lambda _: None)
        sampler = sample.load(folder)
    rows = rows_of(sampler.config)
    images = sampler.draw(rows, JUDGED_PER_CLASS).clamp(0, 1).float().cpu()
    return images, np.repeat(np.arange(len(rows)), JUDGED_PER_CLASS)


if __name__ == "__main__":
    sys.exit(main())
