"""What an API server's controllers are asked about: sequences of calls as in topics.py, each with what comes of them."""

from collections.abc import Callable

from tests.operator.support.api_server import MERGE
from tests.operator.support.on_plane import PREEMPTED, SUCCEEDED, Plain, quick_job
from tests.operator.support.talk import Talk
from tests.operator.support.topics import Facts

TEMPLATE = {"metadata": {"labels": {"app": "a"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}  # fmt: skip


def deletion(talk: Talk) -> Facts:
    made = talk.job("POST", body=quick_job("goes"))
    owner = {"apiVersion": made["apiVersion"], "kind": made["kind"], "name": "goes", "uid": made["metadata"]["uid"]}
    for name, owners in {"owned": [owner], "left": [{**owner, "uid": "0", "name": "never"}], "free": []}.items():
        talk.ask("POST", "configmaps", body={"metadata": {"name": name, "ownerReferences": owners}})
    yield talk.job("DELETE", "goes", {"preconditions": {"uid": "another"}})
    dry = talk.job("DELETE", "goes", query={"dryRun": "All"})
    yield dry.get("status"), talk.job("GET", "goes")["kind"]
    done = talk.job(
        "DELETE", "goes", {"propagationPolicy": "Background", "preconditions": {"uid": made["metadata"]["uid"]}}
    )
    yield done["kind"], done["status"], sorted(done["details"]), done["details"]["kind"], done["details"]["name"]
    yield talk.job("GET", "goes"), talk.job("DELETE", "goes")
    for name in ("owned", "left"):
        talk.place.wait(f"{name} is collected", lambda name=name: "refused" in talk.ask("GET", "configmaps", name))  # type: ignore[misc]
    yield talk.ask("GET", "configmaps", "free")["kind"]
    kept = {"metadata": {"name": "kept", "finalizers": ["example.com/kept"]}}
    talk.ask("POST", "configmaps", body=kept)
    going = talk.ask("DELETE", "configmaps", "kept")
    yield going["kind"], "deletionTimestamp" in talk.ask("GET", "configmaps", "kept")["metadata"]
    talk.ask("PATCH", "configmaps", "kept", {"metadata": {"finalizers": None}}, content_type=MERGE)
    yield talk.ask("GET", "configmaps", "kept")


def indexed(name: str) -> Plain:
    return {
        "metadata": {"name": name},
        "spec": {"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": 0, "podReplacementPolicy": "Failed", "template": TEMPLATE},
    }  # fmt: skip


def jobs_and_pods(talk: Talk) -> Facts:
    def pods(name: str) -> list[Plain]:
        found: list[Plain] = talk.ask("GET", "pods", query={"labelSelector": f"job-name={name}"})["items"]
        return sorted(found, key=lambda pod: pod["metadata"]["name"])

    def all_run(name: str) -> bool:
        return [pod["status"].get("phase") for pod in pods(name)] == ["Running", "Running"]

    def ends(name: str) -> list[str]:
        return [each["type"] for each in talk.ask("GET", "jobs", name).get("status", {}).get("conditions") or () if each["type"] in {"Complete", "Failed"}]  # fmt: skip

    def counts(name: str) -> list[object]:
        status = talk.ask("GET", "jobs", name)["status"]
        return [status.get(part) for part in ("active", "succeeded", "failed")]

    for name in ("wins", "fails"):
        talk.ask("POST", "jobs", body=indexed(name))
        talk.place.wait("two pods run", lambda name=name: all_run(name))  # type: ignore[misc]
        for number, pod in enumerate(pods(name)):
            metadata = pod["metadata"]
            yield metadata["generateName"], sorted(metadata["labels"]), metadata["annotations"], metadata["finalizers"]
            yield metadata["labels"]["batch.kubernetes.io/job-completion-index"], pod["spec"]["hostname"]
            yield {**metadata["ownerReferences"][0], "uid": ""}, pod["spec"]["restartPolicy"], metadata["name"][:-5]
            yield sorted(each["type"] for each in pod["status"]["conditions"]), pod["status"]["containerStatuses"][0]["ready"], number  # fmt: skip
    for number, pod in enumerate(pods("wins")):
        talk.place.set_pod(pod["metadata"]["name"], SUCCEEDED)
        talk.place.wait("counted", lambda number=number: counts("wins")[1] == number + 1)  # type: ignore[misc]
    talk.place.wait("wins", lambda: ends("wins") == ["Complete"])
    yield counts("wins"), [pod["metadata"].get("finalizers") for pod in pods("wins")]
    talk.place.set_pod(pods("fails")[0]["metadata"]["name"], PREEMPTED)
    talk.place.wait("fails", lambda: ends("fails") == ["Failed"])
    reasons = [each["reason"] for each in talk.ask("GET", "jobs", "fails")["status"]["conditions"] if each["type"] == "Failed"]  # fmt: skip
    yield reasons, [pod["status"]["phase"] for pod in pods("fails")][:1]
    talk.ask("DELETE", "jobs", "wins")
    talk.place.wait("the Job is gone", lambda: "refused" in talk.ask("GET", "jobs", "wins"))
    yield [pod["metadata"].get("ownerReferences") for pod in orphans(talk, pods)]
    talk.ask("DELETE", "jobs", "fails", {"propagationPolicy": "Background"})
    talk.place.wait("its pods are collected", lambda: not pods("fails"))
    graceful = pods("wins")[0]["metadata"]["name"]
    gone = talk.ask("DELETE", "pods", graceful, {"gracePeriodSeconds": 0})
    yield gone["kind"], talk.ask("GET", "pods", graceful)["refused"]
    yield talk.ask("DELETE", "pods", body={}, query={"labelSelector": "job-name=wins"})["kind"]
    talk.place.wait("no pod is left", lambda: not pods("wins"))


def orphans(talk: Talk, pods: Callable[[str], list[Plain]]) -> list[Plain]:
    """Pods of a Job that was deleted without them, once they have no owner any more."""
    talk.place.wait("orphans", lambda: not any(pod["metadata"].get("ownerReferences") for pod in pods("wins")))
    return pods("wins")
