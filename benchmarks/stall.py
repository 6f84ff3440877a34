"""How long a save stops training, and how much slower steps are until it is uploaded, against other ways."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from adapter_agent import priority
from adapter_agent.local_files import Folders
from adapter_agent.storage.store import Store
from benchmarks.quickstart import ROOT
from benchmarks.stall_loop import EVERY, PARAMETERS, SAVES, WARM_UP
from benchmarks.transfer import CREDENTIALS, serving_once
from tests.agent.support.node import committed_steps
from tests.agent.support.seaweed import BUCKET, Seaweed

TITLE = "What a save costs training"
NAMES = {
    "ours": "ours, uploaded by the agent",
    "ours-aside": "ours, uploaded by the agent, the store giving way as `atj run`'s does",
    "ours-kept": "ours, written to disk only",
    "save_state": "Accelerate `save_state`, boto3 `upload_file`",
    "async_save-thread": "`async_save`, thread (no upload)",
    "async_save-process": "`async_save`, process (no upload)",
}


@dataclass(frozen=True)
class Figures:
    """Of one way."""

    stalls: list[float]
    quiet: float
    """Median seconds of a step before the first save."""
    after: float
    """Median seconds of a step from then on."""
    committed: int
    """Checkpoints that stood in the store when training ended."""

    @property
    def inflation(self) -> float:
        """How much longer steps are once there are saves: %."""
        return 100 * (self.after / self.quiet - 1)


def measure() -> str:
    """The section's text."""
    os.environ.update(CREDENTIALS)
    with tempfile.TemporaryDirectory(dir=Path.home()) as place:
        folder = Path(place)
        found = {way: measured(way, name, folder) for way, name in NAMES.items()}
    theirs = median(found["save_state"].stalls)

    def share(figures: Figures) -> float:
        return 100 * median(figures.stalls) / theirs

    ours, aside, kept = found["ours"], found["ours-aside"], found["ours-kept"]
    lines = "\n".join(
        f"| {NAMES[way]} | {1000 * median(each.stalls):.0f} / {1000 * max(each.stalls):.0f} | "
        f"{share(each):.2f} % | {1000 * each.quiet:.0f} | {each.inflation:+.1f} % |"
        for way, each in found.items()
    )
    return f"""\
{12 * PARAMETERS / 2**30:.2g} GiB of state ({PARAMETERS / 1e6:.0f} M parameters and AdamW's averages), two ranks with gloo, one thread each, on the two cores of this machine, a save
every {EVERY} steps, {SAVES} saves for each way, one way after the other, each against a SeaweedFS of its own. A stall is how long the training thread is
in the save and in what waits for it before the next optimizer step; inflation compares the median step from the first save on
with that of the {EVERY} before it. The store, the agent and the writer share the two cores with training, which alone keeps both busy: whatever
they compute, training waits for, now or when it has ended. Agent and writer give way to it (niceness 10, the agent's whole session included); the
store does so in one row, like the one that comes along with `atj run`; a store elsewhere would compute on no node.

| | stall p50 / longest, ms | of `save_state`'s | step, ms | inflation |
|---|---|---|---|---|
{lines}

Goals: a stall of at most 1 % of `save_state`'s ({"met" if share(ours) <= 1 else "missed"}: {share(ours):.2f} %), steps at most 3 % longer
({"met" if ours.inflation <= 3 else "missed"}: {ours.inflation:+.1f} %). With a store that gives way the same are {share(aside):.2f} %
and {aside.inflation:+.1f} %, {aside.committed} of the {SAVES} checkpoints being committed when training ended; without the upload {share(kept):.2f} % and
{kept.inflation:+.1f} %."""


def measured(way: str, name: str, folder: Path) -> Figures:
    """One of the ways, with a store that has nothing yet; says when it has ended, and leaves nothing behind."""
    with serving_once(Seaweed(folder / "weed")) as server:
        if way == "ours-aside" and server.process is not None:
            priority.give_way(server.process.pid)
        found = run(way, folder / way, server.url)
    shutil.rmtree(folder / way)
    told = f"{name}: stall {1000 * median(found.stalls):.0f} ms, steps {found.inflation:+.1f} %"
    print(told, file=sys.stderr, flush=True)
    return found


def run(way: str, folder: Path, url: str) -> Figures:
    """Trains two ranks in one of the ways."""
    folders = Folders(folder)
    folders.output.mkdir(parents=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    agent, stored = None, 0
    if way in {"ours", "ours-aside"}:
        common = [
            "--attempt=1", "--node=0", "--nodes=1", "--world-size=2", f"--work={folder}", f"--output-uri=s3://{BUCKET}/ours",
            f"--output-endpoint-url={url}",
        ]  # fmt: skip
        command = [sys.executable, "-m", "adapter_agent"]
        subprocess.run([*command, "restore", *common], check=True, env=environment, capture_output=True)
        agent = subprocess.Popen(
            [*command, "sync", *common], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*launch, "-m", "benchmarks.stall_loop", way, str(folder), url],
        stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    if agent is not None:
        stored = len(committed_steps(Store.connect(f"s3://{BUCKET}/ours", url)))
        agent.terminate()
        agent.wait(120)
    said = json.loads(next(line for line in ended.stdout.splitlines() if line.startswith("{")))
    first = WARM_UP + EVERY  # an upload may last until the next save: only before the first one is it quiet
    return Figures(said["stalls"], median(said["steps"][WARM_UP:first]), median(said["steps"][first:]), stored)
