"""Whoever is killed at whichever step: no committed step is lost, none is corrupt, and nothing is left behind.

Every step of an undisturbed run is a place to be killed at. A few of the combinations run each time;
`CRASH_RUNS=200` (make crash-matrix) takes as many as one likes, `CRASH_FROM=100` begins at the hundredth.
"""

import itertools
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from boto3.session import Session

from adapter_agent.checkpoints import fetch, index
from adapter_agent.storage.store import Store
from adapter_api.progress import ExitCode
from tests.agent.support.crash_matrix import NOTHING, STEPS, Crash, Recovery, Run, Victim
from tests.agent.support.fencing import Fencing
from tests.agent.support.seaweed import BUCKET, Seaweed
from tests.agent.support.servers import COMPILED, SERVERS
from tests.agent.support.versity import Versity

RUNS, FIRST = int(os.environ.get("CRASH_RUNS", "5")), int(os.environ.get("CRASH_FROM", "0"))
FENCING_RUNS = int(os.environ.get("FENCING_RUNS", "1"))
pytestmark = pytest.mark.timeout(0 if RUNS > 20 or FENCING_RUNS > 5 else 1200)
PLACES = [
    pytest.param(
        (name, way), marks=pytest.mark.cluster if name in COMPILED else pytest.mark.process, id=f"{name} {way}"
    )
    for way in ("conditional", "unconditional")
    for name in SERVERS
    # What needs no conditions needs nothing that tells these servers apart; a long run tries it on both all the same.
    if way == "conditional" or name == "seaweedfs" or RUNS > 20
]


@pytest.fixture(params=PLACES)
def chosen(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A server, and the way that the agents write to it."""
    name, way = request.param
    return name, way


@pytest.fixture
def server(chosen: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed | Versity]:
    server = SERVERS[chosen[0]](tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def conditional(chosen: tuple[str, str]) -> bool:
    """Whether the agents send conditions; without, a job says `output.s3.conditionalWrites: false`."""
    return chosen[1] == "conditional"


def exchange(server: Seaweed | Versity) -> Seaweed | Versity:
    """Another server of the same kind, with nothing on it; of the one before nothing stays, for there are hundreds."""
    server.kill()
    shutil.rmtree(server.folder)
    folder = server.folder.with_name(f"{server.folder.name}-next")
    folder.mkdir()
    following = type(server)(folder)
    following.start()
    return following


def place(server: Seaweed | Versity, aws: Session, folder: Path, *, conditional: bool) -> Store:
    uri = f"s3://{BUCKET}/{folder.parent.name}/{folder.name}".replace("_", "-")
    return Store(uri, aws, server.url, None, conditional=conditional)


def run(crash: Crash, server: Seaweed | Versity, aws: Session, folder: Path, *, conditional: bool) -> Run:
    folder.mkdir()
    made = Run(folder, server, place(server, aws, folder, conditional=conditional), crash)
    try:
        made.go()
    finally:
        made.close()
    return made


def crashes(undisturbed: Run) -> list[Crash]:
    """All combinations in a fixed random order, in rounds: one for each step, then another way for each step, and so on."""
    ways: list[tuple[Victim, Recovery]] = [
        ("agent", "restart"), ("agent", "attempt"), ("trainer", "restart"), ("trainer", "attempt"),
        ("both", "attempt"), ("both", "restart"), ("agents", "restart"), ("agents", "attempt"), ("store", "restart"),
    ]  # fmt: skip
    everything = [
        Crash("requests", step, *way, after)
        for step, after, way in itertools.product(range(1, undisturbed.requests + 1), (False, True), ways)
    ]
    recoveries: tuple[Recovery, Recovery] = ("restart", "attempt")
    for place, steps in undisturbed.local_steps().items():
        victim: Victim = "trainer" if "trainer" in place else "agent"
        everything += [
            Crash(place, step, victim, recovery)
            for step, recovery in itertools.product(range(1, steps + 1), recoveries)
        ]
    chance = random.Random(20_261_124)
    chance.shuffle(everything)
    rounds: Counter[tuple[str, int]] = Counter()
    ranked = []
    for crash in everything:
        rounds[crash.place, crash.step] += 1
        ranked.append((rounds[crash.place, crash.step], chance.random(), crash))
    return [crash for *_, crash in sorted(ranked, key=lambda each: each[:2])]


def test_nothing_is_lost_torn_or_left_behind_wherever_a_run_is_killed(
    server: Seaweed | Versity, aws: Session, tmp_path: Path, *, conditional: bool
) -> None:
    undisturbed = run(NOTHING, server, aws, tmp_path / "undisturbed", conditional=conditional)
    assert list(undisturbed.check()) == []
    # The attempt that was lost, and the one after it that restored, swept, and removed a checkpoint.
    assert {place[0] for place in undisturbed.local_steps()} == {"1", "2"}
    assert undisturbed.requests > 100
    found, done = {}, Counter[str]()
    servers = [server]
    try:
        for crash in crashes(undisturbed)[FIRST : FIRST + (RUNS if conditional else -(-RUNS // 2))]:
            disturbed = run(crash, servers[-1], aws, tmp_path / str(crash), conditional=conditional)
            done[f"{crash.victim} at {'a request' if crash.place == 'requests' else 'its disk'}"] += 1
            violations = list(disturbed.check())
            print(f"{crash}: {violations or 'held'}", flush=True)
            if violations:
                found[str(crash)] = violations
            else:
                shutil.rmtree(tmp_path / str(crash))
            if crash.victim == "store":
                # What its own crash has left on its disk is not the next run's affair.
                servers.append(exchange(servers[-1]))
    finally:
        servers[-1].kill()
    print(json.dumps({"requests": undisturbed.requests, "local": undisturbed.local_steps(), "runs": done}, indent=1))
    assert found == {}


@pytest.mark.parametrize("change", [1, 4, 7] if RUNS > 20 else [4])
def test_a_checkpoint_is_of_one_pass_where_one_node_has_sent_what_another_has_not_saved(
    server: Seaweed | Versity, aws: Session, tmp_path: Path, change: int, *, conditional: bool
) -> None:
    """Node 1's process is killed at one of its changes on disk; both start anew in place, and save the step once more."""
    crash = Crash("1-trainer-1", change, "trainer", "restart")
    made = Run(tmp_path, server, place(server, aws, tmp_path, conditional=conditional), crash, uneven=True)
    seen: dict[int, str] = {}
    try:
        made.go()
        for entry in index.current(made.store, None).checkpoints:
            seen[entry.step] = fetch.read_manifest(made.store, entry).manifest.pass_id
    finally:
        made.close()
    assert list(made.check()) == []
    assert seen == {STEPS[0]: "1-2", STEPS[-1]: "2-1"}


@pytest.mark.parametrize("seed", range(FENCING_RUNS))
def test_attempts_that_were_only_stopped_change_nothing_once_a_newer_one_has_the_output(
    server: Seaweed | Versity, aws: Session, tmp_path: Path, seed: int, *, conditional: bool
) -> None:
    chance = random.Random(seed)
    moments = sorted(chance.sample(range(14, 90), 3))
    pauses = tuple((moment, chance.uniform(0.5, 6)) for moment in moments)
    store = place(server, aws, tmp_path, conditional=conditional)
    made = Fencing(tmp_path, server, store, NOTHING, pauses=pauses)
    try:
        made.go()
        ends = made.zombie_ends()
    finally:
        made.close()
    assert list(made.check()) == []
    assert made.attempt >= 4
    assert set(ends) <= {ExitCode.FENCED, ExitCode.COMPLETE}, pauses
