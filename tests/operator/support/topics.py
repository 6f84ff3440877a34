"""What an API server itself is asked about: sequences of calls, each with the facts that must be the same on every one."""

import itertools
from collections.abc import Iterator
from typing import Any

from tests.operator.support.api_server import APPLY, MERGE, Refused, path_of
from tests.operator.support.on_plane import Plain, quick_job
from tests.operator.support.talk import Talk

CONDITION = {"status": "True", "reason": "Why", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
Facts = Iterator[object]


def creation(talk: Talk) -> Facts:
    made = talk.job("POST", body=quick_job("made"))
    yield (
        made["spec"],
        sorted(set(made["metadata"]) - {"managedFields"}),
        "status" in made,
        made["metadata"]["generation"],
    )
    yield talk.job("POST", body=quick_job("made"))
    yield talk.job("POST", body=quick_job("No_Name"))
    yield talk.job("POST", body=quick_job("few", nodes=0))
    yield talk.job("POST", body=quick_job("wrong", suspend="two"))
    yield talk.job("POST", body={**quick_job("none"), "spec": {"nodes": 1}})
    yield talk.job("POST", body={**quick_job("elsewhere"), "metadata": {"name": "elsewhere", "namespace": "default"}})
    yield talk.job("POST", body=quick_job("strict", odd=1), query={"fieldValidation": "Strict"})
    yield "odd" in talk.job("POST", body=quick_job("loose", odd=1))["spec"]
    yield talk.job("POST", body=quick_job("dry"), query={"dryRun": "All"})["spec"]["nodes"], talk.job("GET", "dry")
    versioned = {**quick_job("versioned"), "metadata": {"name": "versioned", "resourceVersion": "1"}}
    yield talk.job("POST", body=versioned)
    named = talk.job("POST", body={**quick_job(""), "metadata": {"generateName": "called-"}})["metadata"]["name"]
    yield named.startswith("called-"), len(named)
    told = {**quick_job("told"), "status": {"state": "Running"}}
    yield "status" in talk.job("POST", body=told)
    try:
        talk.api.call("POST", path_of("adaptertrainingjobs", "nowhere"), quick_job("lost"))
    except Refused as error:
        yield error.code
    try:
        talk.api.call("GET", "apis/nothing.example/v1/things")
    except Refused as error:
        yield str(error)


def versions_and_generations(talk: Talk) -> Facts:
    old = talk.job("POST", body=quick_job("edited"))
    yield talk.changes("edited", lambda: talk.job("PUT", "edited", talk.job("GET", "edited")))
    yield talk.changes("edited", lambda: talk.merge("edited", {"spec": {"nodes": 2}}))
    yield talk.changes("edited", lambda: talk.merge("edited", {"metadata": {"labels": {"a": "b"}}}))
    yield talk.changes("edited", lambda: talk.merge("edited", {"spec": {"nodes": 3}}))
    yield talk.changes(
        "edited", lambda: talk.merge("edited", {"spec": {"suspend": True}, "status": {"state": "Running"}})
    )
    yield "status" in talk.job("GET", "edited")
    yield talk.changes("edited", lambda: talk.job("PUT", "edited", old))
    yield talk.changes(
        "edited", lambda: talk.merge("edited", {"metadata": {"resourceVersion": "1"}, "spec": {"nodes": 4}})
    )
    yield talk.changes(
        "edited", lambda: talk.merge("edited", {"metadata": {"generation": 77, "uid": None, "creationTimestamp": None}})
    )
    now = talk.job("GET", "edited")
    yield talk.changes(
        "edited", lambda: talk.job("PUT", "edited", {**now, "metadata": {**now["metadata"], "uid": "another"}})
    )
    yield talk.changes("edited", lambda: talk.job("PUT", "edited", {**now, "spec": {**now["spec"], "nodes": 5}}))
    yield talk.changes("edited", lambda: talk.merge("edited", {"spec": {"nodes": 0}}))
    yield talk.changes(
        "edited",
        lambda: talk.job("PATCH", "edited", {"spec": {"nodes": 6}}, content_type=MERGE, query={"dryRun": "All"}),
    )
    yield talk.merge("absent", {"spec": {"nodes": 1}}), talk.job("PUT", "absent", quick_job("absent"))
    yield talk.job("GET", "edited")["spec"]


def status_as_a_subresource(talk: Talk) -> Facts:
    talk.job("POST", body=quick_job("told-of"))
    yield talk.changes(
        "told-of",
        lambda: talk.merge("told-of", {"status": {"state": "Running", "attempt": 1}, "spec": {"nodes": 9}}, "/status"),
    )
    found = talk.job("GET", "told-of")
    yield found["status"], found["spec"]["nodes"]
    labelled = {"status": {"attempt": 2}, "metadata": {"labels": {"from": "status"}}}
    yield (
        talk.changes("told-of", lambda: talk.merge("told-of", labelled, "/status")),
        "from" in talk.job("GET", "told-of")["metadata"].get("labels", {}),
    )
    yield talk.changes("told-of", lambda: talk.job("PUT", "told-of", found, "/status"))
    current = talk.job("GET", "told-of")
    yield talk.changes(
        "told-of", lambda: talk.job("PUT", "told-of", {**current, "status": {"state": "Failed"}, "spec": {}}, "/status")
    )
    yield talk.job("GET", "told-of")["status"], talk.job("GET", "told-of", part="/status")["status"]
    yield talk.changes("told-of", lambda: talk.merge("told-of", {"status": {"attempt": "many"}}, "/status"))
    yield talk.changes("told-of", lambda: talk.merge("told-of", {"status": {"state": None, "odd": 1}}, "/status"))
    yield talk.job("GET", "told-of")["status"]
    yield talk.merge("absent", {"status": {}}, "/status"), talk.job("GET", "told-of", part="/nothing")


def apply_and_owners(talk: Talk) -> Facts:
    def status(name: str) -> Plain:
        found: Plain = talk.job("GET", name).get("status") or {}
        return found

    def conditions(*kinds: str) -> list[Plain]:
        return [{"type": kind, **CONDITION} for kind in kinds]

    yield talk.apply_status("absent", {"state": "Running"})
    talk.job("POST", body=quick_job("applied"))
    first = {
        "state": "Running",
        "attempt": 1,
        "nodes": {"ready": 1, "active": 2},
        "conditions": conditions("Accepted", "Running"),
    }
    yield talk.changes("applied", lambda: talk.apply_status("applied", first))
    yield status("applied")
    yield talk.changes("applied", lambda: talk.apply_status("applied", first))
    yield talk.changes("applied", lambda: talk.apply_status("applied", {**first, "nodes": {"ready": 1}}))
    yield status("applied")
    yield talk.changes(
        "applied",
        lambda: talk.apply_status("applied", {"state": "Running", "conditions": conditions("Accepted", "Complete")}),
    )
    yield status("applied")
    yield talk.changes(
        "applied",
        lambda: talk.apply_status(
            "applied", {"state": "Running", "conditions": conditions("Complete", "Suspended", "Accepted")}
        ),
    )
    yield status("applied")
    yield talk.changes("applied", lambda: talk.apply_status("applied", {"attempt": 4}, "two"))
    yield talk.changes("applied", lambda: talk.apply_status("applied", {"state": "Running"}, "two", force=False))
    yield talk.changes("applied", lambda: talk.apply_status("applied", {"state": "Failed"}, "three", force=False))
    yield talk.changes("applied", lambda: talk.apply_status("applied", {"state": "Failed"}, "three"))
    yield status("applied")
    yield talk.changes("applied", lambda: talk.apply_status("applied", {"conditions": conditions("Accepted")}))
    yield status("applied")
    yield talk.changes(
        "applied", lambda: talk.merge("applied", {"status": {"conditions": [], "nodes": {"failed": 7}}}, "/status")
    )
    yield talk.changes(
        "applied",
        lambda: talk.apply_status(
            "applied", {"state": "Pending", "conditions": conditions("Failed", "Accepted"), "nodes": {"ready": 0}}
        ),
    )
    yield status("applied")
    yield talk.changes("applied", lambda: talk.apply_status("applied", {"state": "Pending"}))
    yield status("applied")
    old = talk.version("applied")
    yield talk.changes("applied", lambda: talk.apply_status("applied", {"state": "Running"}, resourceVersion=old))
    yield talk.changes("applied", lambda: talk.apply_status("applied", {"state": "Complete"}, resourceVersion=old))
    yield status("applied")


def apply_of_objects(talk: Talk) -> Facts:
    def labelled(manager: str, labels: Plain, **spec: Any) -> Plain:
        body = {**quick_job("put"), "metadata": {"name": "put", "labels": labels}}
        body["spec"] |= spec
        return talk.job("PATCH", "put", body, query={"fieldManager": manager, "force": "true"}, content_type=APPLY)

    def shown() -> tuple[Plain, object, int]:
        found = talk.job("GET", "put")
        return found["metadata"].get("labels") or {}, found["spec"].get("holds"), found["metadata"]["generation"]

    made = labelled("one", {"a": "1", "b": "1"})
    yield made["spec"], shown()
    labelled("two", {"b": "1", "c": "2"})
    yield shown()
    labelled("one", {"a": "1"})
    yield shown()
    labelled("two", {})
    yield shown()
    yield labelled("two", {}, nodes=7)["spec"]["nodes"], shown()


def lists_and_selectors(talk: Talk) -> Facts:
    for number in range(5):
        labels = {"set": "listed", "number": str(number), **({"even": ""} if number % 2 == 0 else {})}
        talk.ask(
            "POST", "configmaps", body={"metadata": {"name": f"list-{number}", "labels": labels}, "data": {"a": "b"}}
        )

    def names(**query: str) -> object:
        answer = talk.ask("GET", "configmaps", query=query)
        return [each["metadata"]["name"] for each in answer["items"]], sorted(answer["items"][0]) if answer[
            "items"
        ] else []

    yield names(labelSelector="set=listed")
    for selector in ("number in (1,3)", "set=listed,number notin (1, 3)", "set=listed,even", "set=listed,!even", "set==listed,number!=4"):  # fmt: skip
        yield names(labelSelector=selector)
    yield names(fieldSelector="metadata.name=list-2")
    page = talk.ask("GET", "configmaps", query={"labelSelector": "set=listed", "limit": "2"})
    yield [each["metadata"]["name"] for each in page["items"]], page["kind"], page["apiVersion"]
    talk.ask("DELETE", "configmaps", "list-4")
    rest: list[str] = []
    while page["metadata"].get("continue"):
        going = {"labelSelector": "set=listed", "limit": "2", "continue": page["metadata"]["continue"]}
        page = talk.ask("GET", "configmaps", query=going)
        rest += [each["metadata"]["name"] for each in page["items"]]
    yield rest
    talk.ask("DELETE", "configmaps", body={}, query={"labelSelector": "set=listed,even"})
    yield names(labelSelector="set=listed")
    listed = talk.job("GET")
    yield (
        listed["kind"],
        listed["apiVersion"],
        sorted(listed["items"][0]),
        int(listed["metadata"]["resourceVersion"]) > 0,
    )


def watches(talk: Talk) -> Facts:
    version = talk.ask("GET", "configmaps")["metadata"]["resourceVersion"]

    def labelled(labels: Plain) -> None:
        talk.ask("PATCH", "configmaps", "seen", {"metadata": {"labels": labels}}, content_type=MERGE)

    def told(selector: str, count: int) -> list[tuple[str, str, bool]]:
        query = {"watch": "1", "resourceVersion": version, "labelSelector": selector, "timeoutSeconds": "20"}
        with talk.api.watched("configmaps", talk.namespace, version, query) as events:
            found = list(itertools.islice(events, count))
        return [(e["type"], e["object"]["metadata"]["name"], int(e["object"]["metadata"]["resourceVersion"]) > int(version)) for e in found]  # fmt: skip

    talk.ask("POST", "configmaps", body={"metadata": {"name": "seen"}})
    labelled({"look": "here"})
    talk.ask("PATCH", "configmaps", "seen", {"data": {"a": "1"}}, content_type=MERGE)
    talk.ask("PATCH", "configmaps", "seen", {"data": {"a": "1"}}, content_type=MERGE)
    labelled({"look": None})
    labelled({"look": "here"})
    talk.ask("DELETE", "configmaps", "seen")
    yield told("", 7 - 1)
    yield told("look=here", 5)
    with talk.api.watched("adaptertrainingjobs", talk.namespace, "1") as events:
        expired = next(events)
    yield expired["type"], expired["object"]["code"], expired["object"]["reason"], expired["object"]["kind"]


def leases_and_events(talk: Talk) -> Facts:
    lease = {"metadata": {"name": "held"}, "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}}  # fmt: skip
    made = talk.ask("POST", "leases", body=lease)
    yield made["spec"], made["kind"], talk.ask("POST", "leases", body=lease)
    newer = talk.ask("PUT", "leases", "held", {**made, "spec": {**made["spec"], "holderIdentity": "two"}})
    yield newer["spec"], newer["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    yield talk.ask("PUT", "leases", "held", made)
    about = {"kind": "AdapterTrainingJob", "apiVersion": "adaptertraining.dev/v1alpha1", "name": "x", "namespace": talk.namespace, "uid": "of-x"}  # fmt: skip
    event = {"metadata": {"name": "x.1"}, "involvedObject": about, "type": "Normal", "reason": "Told", "message": "m"}
    yield talk.ask("POST", "events", body=event)["involvedObject"], talk.ask("POST", "events", body=event)
    for uid in ("of-x", "of-y"):
        found = talk.ask("GET", "events", query={"fieldSelector": f"involvedObject.uid={uid}"})["items"]
        yield [each["metadata"]["name"] for each in found]
