"""What an API server says of its kinds, and of objects that two of its groups show: the facts that must be the same on every one."""

from tests.operator.support.api_server import Refused
from tests.operator.support.talk import Talk
from tests.operator.support.topics import Facts


def new_events(talk: Talk) -> Facts:
    """What is created by events.k8s.io/v1 is read by the core group."""
    path = f"apis/events.k8s.io/v1/namespaces/{talk.namespace}/events"
    regarding = {"kind": "AdapterTrainingJob", "apiVersion": "adaptertraining.dev/v1alpha1", "name": "x", "namespace": talk.namespace, "uid": "of-new"}  # fmt: skip
    event = {
        "metadata": {"name": "new.1"}, "regarding": regarding, "type": "Normal", "reason": "Told", "note": "why",
        "action": "Reconcile", "reportingController": "teller", "reportingInstance": "teller-1",
        "eventTime": "2026-01-01T00:00:00.000000Z",
    }  # fmt: skip
    made = talk.api.call("POST", path, event)
    yield made["apiVersion"], made["regarding"], made["note"], made["reportingController"]
    [read] = talk.ask("GET", "events", query={"fieldSelector": "involvedObject.uid=of-new"})["items"]
    names = (
        "involvedObject",
        "message",
        "reason",
        "type",
        "action",
        "reportingComponent",
        "reportingInstance",
        "eventTime",
    )
    yield [read[name] for name in names]
    for name in (None, "eventTime", "reportingController", "reportingInstance", "action", "reason", "type"):
        other = {**event, "metadata": {"name": "new.1" if name is None else f"new.{name.lower()}"}}
        try:
            talk.api.call("POST", path, {each: value for each, value in other.items() if each != name})
        except Refused as error:
            yield name, error.code


def discovery(talk: Talk) -> Facts:
    """Of the kinds that the operator uses: the real API server knows more, and more verbs' resources."""
    groups = {each["name"]: each for each in talk.api.call("GET", "apis")["groups"]}
    ours = groups["adaptertraining.dev"]
    yield ours["versions"], ours["preferredVersion"]
    for name in ("batch", "coordination.k8s.io", "networking.k8s.io"):
        yield [each["version"] for each in groups[name]["versions"] if each["version"] == "v1"]
    yield talk.api.call("GET", "api")["versions"]
    for path, plurals in _DISCOVERED.items():
        found = talk.api.call("GET", path)
        yield found["kind"], found["groupVersion"]
        shown = {each["name"]: each for each in found["resources"]}
        for plural in plurals:
            each = shown[plural]
            yield each["kind"], each["namespaced"], each["singularName"], sorted(each["verbs"])
            yield (each.get("shortNames"), each.get("categories")) if path.startswith("apis/adapter") else None
    for path in ("apis/nothing.example/v1", "apis/adaptertraining.dev/v9"):
        try:
            talk.api.call("GET", path)
        except Refused as error:
            yield str(error)


_DISCOVERED = {
    "api/v1": ("pods", "pods/status", "namespaces/status", "configmaps", "events"),
    "apis/batch/v1": ("jobs", "jobs/status"),
    "apis/coordination.k8s.io/v1": ("leases",),
    "apis/events.k8s.io/v1": ("events",),
    "apis/apiextensions.k8s.io/v1": ("customresourcedefinitions",),
    "apis/adaptertraining.dev/v1alpha1": ("adaptertrainingjobs", "adaptertrainingjobs/status"),
}
