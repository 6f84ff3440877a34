"""Whatever is killed at whichever write: no committed step is lost, none is corrupt, and nothing is left behind.

Every write of an undisturbed run is a place to be killed at. A few of the combinations run each time;
`CRASH_RUNS=200` (make crash-matrix) takes as many as one likes.
"""

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from boto3.session import Session

from adapter_agent.store import Store
from adapter_api.progress import ExitCode
from tests.agent.crash_matrix import NOTHING, Crash, Fencing, Recovery, Run, Victim
from tests.agent.seaweed import BUCKET, Seaweed

RUNS = int(os.environ.get("CRASH_RUNS", "8"))
pytestmark = pytest.mark.timeout(0 if RUNS > 20 else 400)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    server = Seaweed(tmp_path_factory.mktemp("weed"))
    server.start()
    yield server
    server.kill()


def run(crash: Crash, server: Seaweed, aws: Session, folder: Path) -> Run:
    folder.mkdir()
    store = Store(f"s3://{BUCKET}/{folder.parent.name}/{folder.name}".replace("_", "-"), aws, server.url, None)
    made = Run(folder, server, store, crash)
    made.go()
    made.close()
    return made


def crashes(writes: int, count: int) -> list[Crash]:
    """All combinations in a fixed random order, as many as asked for, every write as often as any other."""
    ways: list[tuple[Victim, Recovery]] = [
        ("agent", "restart"), ("agent", "attempt"), ("both", "restart"), ("both", "attempt"), ("store", "restart")
    ]  # fmt: skip
    everything = [
        Crash(write, after, *way) for write, after, way in itertools.product(range(1, writes + 1), (False, True), ways)
    ]
    order = random.Random(20_261_124)
    order.shuffle(everything)
    seen: dict[int, int] = {}
    ranked = []
    for crash in everything:
        seen[crash.write] = seen.get(crash.write, 0) + 1
        ranked.append((seen[crash.write], crash))
    first_rounds = [crash for _, crash in sorted(ranked, key=lambda each: each[0])]
    return first_rounds[:count]


def test_nothing_is_lost_torn_or_left_behind_wherever_a_run_is_killed(
    server: Seaweed, aws: Session, tmp_path: Path
) -> None:
    undisturbed = run(NOTHING, server, aws, tmp_path / "undisturbed")
    assert list(undisturbed.check()) == []
    assert undisturbed.writes > 30
    found = {}
    for crash in crashes(undisturbed.writes, RUNS):
        disturbed = run(crash, server, aws, tmp_path / str(crash))
        if violations := list(disturbed.check()):
            found[str(crash)] = violations
    assert found == {}


@pytest.mark.parametrize("seed", range(max(2, RUNS // 10)))
def test_attempts_that_were_only_stopped_change_nothing_once_a_newer_one_has_the_output(
    server: Seaweed, aws: Session, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    moments = sorted(chance.sample(range(14, 90), 3))
    pauses = tuple((moment, chance.uniform(0.5, 6)) for moment in moments)
    store = Store(f"s3://{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}".replace("_", "-"), aws, server.url, None)
    made = Fencing(tmp_path, server, store, NOTHING, pauses=pauses)
    made.go()
    ends = made.zombie_ends()
    made.close()
    assert list(made.check()) == []
    assert set(ends) <= {ExitCode.FENCED, ExitCode.COMPLETE}, pauses
