"""The API server's own record of what kopf asks for: it reads, and writes nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.tools import Tools
from tests.operator.support import lives
from tests.operator.support.on_plane import OnPlane

pytestmark = pytest.mark.cluster


@pytest.fixture
def audited(cluster_tools: Tools, tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path / "plane", cluster_tools, fake_nodes=1, audit=True)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


def test_kopf_reads_and_writes_nothing(audited: ControlPlane, tmp_path: Path) -> None:
    place = OnPlane(audited, "audited", tmp_path)
    try:
        place.start()
        assert lives.lead(place, ["audited"]) == [lives.UNDISTURBED]
        operator = place.running[0]
        operator.terminate()
        assert operator.wait(60) == 0
        place.wait("the end of kopf's watch is recorded", lambda: ("watch", "adaptertrainingjobs") in asked_by("kopf/", audited))  # fmt: skip
    finally:
        place.close()
    of_kopf = asked_by("kopf/", audited)
    assert {verb for verb, _ in of_kopf} <= {"get", "list", "watch"}
    assert {resource for _, resource in of_kopf} == {"", "adaptertrainingjobs"}, "and discovery, which is no resource"
    assert {("create", "jobs"), ("patch", "adaptertrainingjobs"), ("create", "events")} <= asked_by(
        "adapter-training-operator", audited
    ), "what writes is recorded"


def asked_by(agent: str, plane: ControlPlane) -> set[tuple[str, str]]:
    """Verbs and resources of a client's requests."""
    records: list[dict[str, Any]] = [json.loads(line) for line in plane.audit_log.read_text().splitlines()]
    return {
        (each["verb"], each.get("objectRef", {}).get("resource", ""))
        for each in records
        if str(each.get("userAgent", "")).startswith(agent)
    }
