"""What the operator counts is what dashboards ask for, under the names that they know."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from adapter_agent.syncing.report import Report
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


def of_the_chart() -> Iterator[tuple[str, str]]:
    """Every expression that the chart ships, with where it stands."""
    for file in sorted((CHART / "files").glob("*dashboard.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{file.name}: {panel['title']}", target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


def rules() -> list[dict[str, Any]]:
    """The alerts of the chart; what Helm fills in is a number each time."""
    text = (CHART / "templates" / "metrics.yaml").read_text()
    group = text[text.index("    - name: adapter-training\n") :].split("{{- end }}", 1)[0]
    described = re.sub(r"^( +(?:summary|description)): .*$", r"\1: text", group, flags=re.MULTILINE)
    loaded: list[dict[str, Any]] = yaml.safe_load(re.sub(r"\{\{[^}]*\}\}", "7", described))[0]["rules"]
    return loaded


def counted() -> set[str]:
    """Names of all that the operator and an agent tell."""
    agents = Report(Path(), "s3://bucket").families()
    families = [*metrics.registry.collect(), *agents]
    return {f"{family.name}{ending}" for family in families for ending in ("", "_total", "_bucket")}


@pytest.mark.parametrize(("where", "expression"), [pytest.param(*each, id=each[0]) for each in of_the_chart()])
def test_what_the_chart_ships_is_promql_about_what_is_counted(where: str, expression: str) -> None:
    filled = re.sub(r"\$(namespace|job)", "x", expression)
    promql_parser.parse(filled)
    asked = set(re.findall(r"[a-z]+(?:_[a-z0-9]+)+", re.sub(r"\{[^}]*\}|by \([^)]*\)", "", filled)))
    assert asked - {"histogram_quantile"}, where
    assert asked - {"histogram_quantile"} <= counted()


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    assert {"AdapterTrainingJobsFailed", "AdapterTrainingCommitsStopped", "AdapterTrainingOperatorDoesNotLead"} <= {
        rule["alert"] for rule in rules()
    }
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
