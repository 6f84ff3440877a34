"""What the operator counts is what dashboards ask for, under the names that they know."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapter_operator import metrics
from tests.operator.support import lives
from tests.operator.support.on_plane import OnPlane
from tests.operator.support.planes import Plane
from tests.support.ports import free_port
from tests.support.repository import CHART

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


@pytest.fixture
def place(plane: Plane, tmp_path: Path) -> Iterator[OnPlane]:
    place = OnPlane(plane, "counted", tmp_path)
    yield place
    place.close()


def scraped(port: int) -> Samples:
    """Values by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
        text = response.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_a_life_is_counted_as_controller_runtime_and_client_go_count(place: OnPlane) -> None:
    port = free_port()
    place.start(ADAPTER_OPERATOR_HTTP_PORT=str(port))
    assert lives.lead(place, ["counted"]) == [lives.UNDISTURBED]
    found = scraped(port)
    queue = (("controller", "adaptertrainingjob"), ("name", "adaptertrainingjob"))
    assert found["leader_election_master_status"] == {(("name", "adapter-training-operator"),): 1}
    assert found["workqueue_adds_total"][queue] >= found["workqueue_queue_duration_seconds_count"][queue] > 3
    assert set(found["workqueue_depth"]) == set(found["workqueue_retries_total"]) == {queue}
    ended = {dict(labels)["result"]: count for labels, count in found["controller_runtime_reconcile_total"].items()}
    [taken] = found["controller_runtime_reconcile_time_seconds_count"].values()
    assert sum(ended.values()) == taken
    assert ended["success"] > 0
    asked = {(dict(each)["method"], dict(each)["code"]) for each in found["rest_client_requests_total"]}
    assert {("GET", "200"), ("POST", "201"), ("PATCH", "200"), ("DELETE", "200")} <= asked
    [host] = {dict(each)["host"] for each in found["rest_client_requests_total"]}
    assert place.api.address.endswith(host)
    # kopf's, which ask for discovery, a list and a watch, are among them.
    ours = sum(found["adapter_operator_api_requests_total"].values())
    assert sum(found["rest_client_requests_total"].values()) >= ours + 3
    assert found["process_cpu_seconds_total"][()] > 0
    assert found["process_resident_memory_bytes"][()] > 1e7


def test_the_dashboard_asks_for_nothing_that_nobody_counts() -> None:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"[a-z]+(?:_[a-z0-9]+)+", re.sub(r"\{[^}]*\}", "", target["expr"]))
        if name != "histogram_quantile"
    }
    counted = {
        f"{family.name}{ending}" for family in metrics.registry.collect() for ending in ("", "_total", "_bucket")
    }
    assert len(asked) > 6
    assert asked <= counted
