"""Schedulers read from a child Job and its pods which checkpoint is committed, and when: with one write for each commit."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adapter_api.status import CheckpointStatus
from adapter_operator.act.commit_marks import STEP_ANNOTATION, TIME_ANNOTATION, commit_marks
from adapter_operator.names import AGENT_PORT
from tests.operator.support import lives
from tests.operator.support.on_plane import PREEMPTED, OnPlane
from tests.operator.support.planes import Plane

ADDRESS = "127.77.0.2"
_NUMBERS = itertools.count()
COMMITS = {20: "2026-01-01T00:00:20Z", 40: "2026-01-01T00:00:40Z"}


class Agent(BaseHTTPRequestHandler):
    """Node 0's agent of a run that has committed the step in `committed`."""

    committed = 20

    def do_GET(self) -> None:
        step = self.committed
        mark = {"step": step, "uri": f"s3://bucket/checkpoint-{step}", "committed_at": COMMITS[step], "bytes": 7}
        now = datetime.now(UTC).isoformat()
        told = {"step": step + 1, "total_steps": 100, "updated_at": now, "checkpoint": mark, "resumed_step": 0}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def agent() -> Iterator[type[Agent]]:
    kind = type("ThisAgent", (Agent,), {})
    server = ThreadingHTTPServer((ADDRESS, AGENT_PORT), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield kind
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def place(plane: Plane, tmp_path: Path) -> Iterator[OnPlane]:
    # A namespace takes its time to go: each test has one of its own.
    place = OnPlane(plane, f"marked-{next(_NUMBERS)}", tmp_path, {"ADAPTER_OPERATOR_PROGRESS_SECONDS": "0.2"})
    yield place
    place.close()


def shown(place: OnPlane, kind: str, attempt: int) -> list[tuple[str | None, str | None]]:
    """Step and time on every object of an attempt."""
    objects = place.pods("digits", attempt) if kind == "pods" else place.items_of("digits", kind)
    mine = [each for each in objects if kind == "pods" or each["metadata"]["name"] == f"digits-{attempt}"]
    found: list[dict[str, Any]] = [each["metadata"].get("annotations") or {} for each in mine]
    return [(each.get(STEP_ANNOTATION), each.get(TIME_ANNOTATION)) for each in found]


def run(place: OnPlane) -> None:
    place.create("digits")
    place.wait_state("digits", "Running")
    name = place.pods("digits", 1)[0]["metadata"]["name"]
    place.set_pod(name, {"podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]})


def test_each_commit_is_told_and_the_next_attempt_begins_with_the_last(place: OnPlane) -> None:
    place.start()
    with agent() as told:
        run(place)
        place.wait("the first commit", lambda: shown(place, "pods", 1) == [("20", COMMITS[20])] * 2)
        assert shown(place, "jobs", 1) == [("20", COMMITS[20])]
        told.committed = 40
        place.wait("the second commit", lambda: shown(place, "pods", 1) == [("40", COMMITS[40])] * 2)
        assert shown(place, "jobs", 1) == [("40", COMMITS[40])]
    place.set_pod(place.pods("digits", 1)[1]["metadata"]["name"], PREEMPTED)
    place.wait_state("digits", "Running", attempt=2)
    assert shown(place, "pods", 2) == [("40", COMMITS[40])] * 2
    assert shown(place, "jobs", 2) == [("40", COMMITS[40])]
    assert not place.history.faults
    lives.clear(place, "digits")


def test_who_does_not_want_it_gets_no_write_more(place: OnPlane) -> None:
    place.start(ADAPTER_OPERATOR_COMMIT_MARKS="false")
    with agent():
        run(place)
        place.wait("the commit is in the status", lambda: "checkpoint" in place.status("digits"))
    assert shown(place, "pods", 1) == [(None, None)] * 2
    assert shown(place, "jobs", 1) == [(None, None)]
    lives.clear(place, "digits")


def test_times_are_told_in_utc_to_the_second() -> None:
    moment = datetime.fromisoformat("2026-01-01T01:00:00.75+01:00")
    checkpoint = CheckpointStatus(step=7, uri="s3://bucket/checkpoint-7", committed_at=moment, bytes=1)
    assert commit_marks(checkpoint) == {STEP_ANNOTATION: "7", TIME_ANNOTATION: "2026-01-01T00:00:00Z"}
    assert commit_marks(None) == {}
