"""A quota that refuses the pods of a job is told in its condition within seconds, with the field to set; then it runs."""

import re
from collections.abc import Iterator

import pytest

from adapter_operator.decide.refusals import mending
from tests.operator.support import lives
from tests.operator.support.on_plane import OnPlane, condition, serving
from tests.operator.support.planes import Plane
from tests.operator.support.stand_in.plane import StandIn

QUOTA = {"metadata": {"name": "limits"}, "spec": {"hard": {"limits.cpu": "8"}}}


@pytest.fixture(scope="module")
def place(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    with serving(plane, "quota", tmp_path_factory.mktemp("quota")) as place:
        yield place


def limit(place: OnPlane) -> None:
    """A quota on the CPUs that containers may use at most: who states none is refused."""
    if isinstance(place.plane, StandIn):
        place.plane.refused[place.namespace] = (
            'pods "x" is forbidden: failed quota: limits: must specify limits.cpu for: restore,sync,trainer'
        )
    else:
        place.api.call("POST", f"api/v1/namespaces/{place.namespace}/resourcequotas", QUOTA)


def unlimit(place: OnPlane) -> None:
    if isinstance(place.plane, StandIn):
        place.plane.refused.clear()
    else:
        place.api.call("DELETE", f"api/v1/namespaces/{place.namespace}/resourcequotas/limits")


def test_a_quota_that_refuses_pods_is_told_with_the_fields_to_set(place: OnPlane) -> None:
    limit(place)
    place.create("refused", resources={})
    status = place.wait_reason("refused", "PodsRefused", seconds=60)
    assert status["state"] == "Pending"
    told = condition(status, "Running")["message"]
    assert re.search(r"must specify limits\.cpu for: .*restore.*sync", told)
    assert "Set spec.agentResources.{limits.cpu} and spec.resources.{limits.cpu}" in told
    unlimit(place)
    place.wait_state("refused", "Running")
    assert place.status("refused")["attempt"] == 1
    lives.clear(place, "refused")


LIMITS = {"metadata": {"name": "small"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}}


def test_a_limit_range_that_refuses_pods_is_told_with_the_fields_to_set(place: OnPlane) -> None:
    if isinstance(place.plane, StandIn):
        place.plane.refused[place.namespace] = (
            'pods "x" is forbidden: [maximum memory usage per Container is 1Gi, but limit is 2Gi]'
        )
    else:
        place.api.call("POST", f"api/v1/namespaces/{place.namespace}/limitranges", LIMITS)
    place.create("bounded", resources={})  # restore and sync may use 2Gi
    told = condition(place.wait_reason("bounded", "PodsRefused", seconds=60), "Running")["message"]
    assert "maximum memory usage per Container is 1Gi, but limit is 2Gi" in told
    assert "Set limits.memory to at most 1Gi, in spec.resources for the trainer and in spec.agentResources for" in told
    if isinstance(place.plane, StandIn):
        place.plane.refused.clear()
    else:
        place.api.call("DELETE", f"api/v1/namespaces/{place.namespace}/limitranges/small")
    lives.clear(place, "bounded")


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        ("must specify limits.cpu for: restore,sync", "Set spec.agentResources.{limits.cpu}, or let"),
        ("must specify limits.cpu for: sync; requests.memory for: trainer", "Set spec.agentResources.{limits.cpu, requests.memory} and spec.resources."),
        ("exceeded quota: q, requested: pods=2, used: pods=9, limited: pods=10", "Ask for less"),
        ("exceeded quota: team, requested: limits.cpu=8,limits.memory=9Gi, used: limits.cpu=4, limited: limits.cpu=8",
         "Ask for less in spec.resources, spec.agentResources or spec.nodes, or wait until the quota team has room for limits.cpu=8,limits.memory=9Gi"),
        ("[maximum memory usage per Container is 1Gi, but limit is 2Gi, minimum cpu usage per Pod is 3, but request is 2]",
         "Set limits.memory to at most 1Gi, requests.cpu to at least 3 over all containers of a pod, in spec.resources for"),
        ("maximum cpu usage per Container is 1.  No limit is specified", "Set limits.cpu to at most 1, in spec.resources"),
        ("cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000", "Set limits.cpu to at most 2 times requests.cpu"),
        ("unable to validate against any security context constraint: [.spec.securityContext.fsGroup: Invalid value]", "Set spec.pod.securityContext: {}"),
        ('pod rejected: RuntimeClass "nvidia" not found', "Correct spec.pod.runtimeClassName"),
        ("no PriorityClass with name high was found", "Correct spec.scheduling.priorityClassName"),
        ('error looking up service account team/t: serviceaccount "t" not found', "Correct spec.pod.serviceAccountName"),
        ("violates PodSecurity", "Ask for less"),
        ("", "Ask for less"),
    ],
)  # fmt: skip
def test_the_field_to_set_follows_from_what_the_quota_says(refusal: str, told: str) -> None:
    assert mending(refusal).startswith(told)
