"""What it takes until frozen encoders' outputs are there: made by one node, by two, exchanged, and found in object storage."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import shapes
from benchmarks.start import first_step
from benchmarks.transfer import CREDENTIALS, serving_once
from tests.agent.support.seaweed import BUCKET, Seaweed

TITLE = "Making and exchanging encodings"
PICTURES = 3072
ROUNDS = 2
ALONE, APART, EXCHANGED, FOUND = (
    "one node",
    "two nodes, each for itself",
    "two nodes, exchanging",
    "two nodes, a second job",
)
NODES = {ALONE: 1, APART: 2, EXCHANGED: 2, FOUND: 2}


@dataclass(frozen=True)
class Start:
    """Of one job."""

    encoding: float
    """Seconds from the first look into the cache until every node has everything."""
    first_step: float
    """Seconds from `atj run` to the first step, with what agents fetch before."""


def measure() -> str:
    """The section's text."""
    os.environ.update(CREDENTIALS)
    found: dict[str, list[Start]] = {way: [] for way in NODES}
    with tempfile.TemporaryDirectory(dir=Path.home()) as place:
        data = Path(place) / "data"
        data.mkdir()
        shapes.write_data(data, shapes.tiny(), PICTURES)
        for number in range(ROUNDS):
            folder = Path(place) / str(number)
            folder.mkdir()
            with serving_once(Seaweed(folder / "store")) as server:
                for way in NODES:
                    # The second job finds what the exchanging one has left.
                    uri = f"s3://{BUCKET}/encodings" if way in (EXCHANGED, FOUND) else None
                    job = _job(data, server.url, way, uri)
                    found[way].append(started(job, folder / way.replace(" ", "-")))
    base = median(start.encoding for start in found[ALONE])
    rows = "\n".join(
        f"| {way} | {_median(starts, 'encoding'):.1f} | {_median(starts, 'encoding') / base:.2f} | "
        f"{_median(starts, 'first_step'):.1f} |"
        for way, starts in found.items()
    )
    return f"""\
{PICTURES} JPEGs of {2 * shapes.tiny().resolution} pixels with a caption each, the encoders of the section on training speed; `atj run`, one thread a
node on the two cores of this machine, which a SeaweedFS for what is exchanged shares; median of {ROUNDS} rounds in which all take
turns. A picture makes three encodings: its latents, its features as a reference, its caption's states. What is counted as
encoding ends when every node has all of them; what agents fetch before training begins is in the time to the first step alone.

| | encoding, s | of one node's | to the first step, s |
|---|---|---|---|
{rows}"""


def _median(starts: list[Start], name: str) -> float:
    return float(median(getattr(start, name) for start in starts))


def _job(data: Path, endpoint: str, way: str, uri: str | None) -> dict[str, Any]:
    name = way.replace(",", "").replace(" ", "-")
    training = shapes.configuration(data, shapes.tiny(), "on", max_train_steps=100).model_dump(mode="json")
    cache = training["data"]["params"]["cache"]
    cache["folder"], cache["uri"] = None, uri
    training["logging"]["log_steps"] = 1
    return {
        "apiVersion": "adaptertraining.dev/v1alpha1",
        "kind": "AdapterTrainingJob",
        "metadata": {"name": name},
        "spec": {
            "nodes": NODES[way],
            "resources": {"limits": {"cpu": "1"}},
            "output": {"s3": {"uri": f"s3://{BUCKET}/{name}", "endpointURL": endpoint}},
            "training": training,
        },
    }


def started(job: dict[str, Any], output: Path) -> Start:
    """Runs a job to its first step."""
    seconds = first_step(job, output)
    lines = (output / "node-0" / "output" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    pauses = [json.loads(line).get("pauses", {}) for line in lines]
    return Start(sum(pause.get("encoding", 0.0) for pause in pauses), seconds)
