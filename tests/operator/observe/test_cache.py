"""The cache keeps the newest of what it is shown, and forgets what a list no longer shows."""

from typing import Any

import pytest

from adapter_api.progress import Progress
from adapter_operator.observe.cache import Cache
from adapter_operator.observe.observed import Cause, ObservedPod, Unreachable, pod_of
from tests.operator.support.builders import KEY, NOW, after, raw_job, raw_pod


def test_a_late_event_does_not_undo_a_newer_reply() -> None:
    cache = Cache()
    cache.put_job(raw_job(5))
    cache.put_job(raw_job(4))
    job = cache.job(KEY)
    assert job is not None
    assert job.status["attempt"] == 5


def test_what_is_told_late_of_a_predecessor_touches_nothing_of_the_job_that_has_its_name_now() -> None:
    cache = Cache()
    cache.put_job(raw_job(5, uid="predecessor"))
    cache.put_job(raw_job(9, uid="successor"))
    cache.put_pod(raw_pod())
    cache.put_job(raw_job(7, uid="predecessor"))
    cache.drop_job(raw_job(8, uid="predecessor"))
    job = cache.job(KEY)
    assert job is not None
    assert (job.uid, len(cache.observed(KEY).pods), cache.states.total()) == ("successor", 1, 1)


def test_a_specification_that_is_served_differently_under_another_crd_is_taken_over() -> None:
    cache = Cache()
    cache.put_job(raw_job(5, spec={"nodes": 2, "holdFor": "later"}))
    cache.put_job(raw_job(5))
    job = cache.job(KEY)
    assert job is not None
    assert job.raw(KEY)["spec"] == {"nodes": 2}


@pytest.mark.parametrize("status", ["Running", ["Running"], 7, {"state": ["Running"]}])
def test_a_stored_status_that_makes_no_sense_counts_as_none(status: Any) -> None:
    cache = Cache()
    cache.put_job(raw_job(4, status=status))
    cache.put_job(raw_job(5))
    job = cache.job(KEY)
    assert job is not None
    assert job.status == {"attempt": 5}
    assert +cache.states == {"Pending": 1}


def test_a_pod_that_was_deleted_stays_deleted_until_a_list_says_otherwise() -> None:
    cache = Cache()
    cache.put_pod(raw_pod())
    cache.pods_leave(KEY, {"of another attempt"})
    assert cache.observed(KEY).pods[0].deleted_at is None
    cache.pods_leave(KEY, {"j1"})
    assert cache.put_pod(raw_pod()) is None, "an event from before the deletion is no news"
    leaving = cache.observed(KEY).pods[0]
    assert leaving.deleted_at is not None
    assert not leaving.is_gone(NOW), "only the API server says when its grace period ends"
    cache.set_pods(KEY, [raw_pod()])
    assert cache.observed(KEY).pods[0].deleted_at is None


def test_a_job_that_was_made_anew_starts_with_nothing() -> None:
    cache = Cache()
    cache.put_job(raw_job(5))
    cache.put_pod(raw_pod())
    cache.put_job(raw_job(9, uid="u2"))
    assert cache.observed(KEY).pods == ()
    cache.drop_job(raw_job(5))  # the deletion of the first one, told late
    assert cache.job(KEY) is not None


def test_a_list_forgets_pods_that_no_event_told_of_but_keeps_what_came_meanwhile() -> None:
    cache = Cache()
    cache.put_pod(raw_pod("old", "1"))
    before = cache.pod_uids()
    cache.put_pod(raw_pod("new", "2"))
    assert cache.set_all_pods([], before) == {KEY}
    assert [pod.uid for pod in cache.observed(KEY).pods] == ["2"]


def listed(*raws: dict[str, Any]) -> list[ObservedPod]:
    return [pod for raw in raws if (pod := pod_of(raw)) is not None]


def versioned(version: int, **status: Any) -> dict[str, Any]:
    raw = raw_pod(**status)
    raw["metadata"]["resourceVersion"] = str(version)
    return raw


def test_a_list_tells_what_no_event_told_and_does_not_undo_what_one_has_told_since() -> None:
    cache = Cache()
    cache.put_pod(versioned(5))
    assert cache.set_all_pods(listed(versioned(7, phase="Failed")), {"p1"}) == {KEY}
    assert cache.observed(KEY).pods[0].phase == "Failed"
    assert cache.set_all_pods(listed(versioned(6)), {"p1"}) == set()
    assert cache.observed(KEY).pods[0].phase == "Failed"


def test_a_pod_that_went_while_the_list_was_made_does_not_come_back_with_it() -> None:
    cache = Cache()
    cache.put_pod(versioned(5))
    before = cache.pod_uids()
    cache.drop_pod(versioned(6))
    assert cache.set_all_pods(listed(versioned(5)), before) == set()
    assert cache.observed(KEY).pods == ()


def test_jobs_are_counted_by_state_as_they_change_and_go() -> None:
    cache = Cache()
    cache.put_job(raw_job(1))
    cache.put_job(raw_job(2, status={"state": "Running"}))
    assert +cache.states == {"Running": 1}
    cache.put_job(raw_job(3, uid="u2"))
    assert +cache.states == {"Pending": 1}
    cache.drop_job(raw_job(3, uid="u2"))
    cache.put_job(raw_job(4))
    cache.keep_jobs(set())
    assert not +cache.states


def test_a_pod_that_shows_nothing_new_wakes_nobody() -> None:
    cache = Cache()
    assert cache.put_pod(raw_pod()) == KEY
    assert cache.put_pod(raw_pod(hostIP="10.0.0.1")) is None
    assert cache.put_pod(raw_pod(phase="Failed")) == KEY


def test_pods_of_others_and_with_edited_labels_are_left_alone() -> None:
    foreign = raw_pod()
    foreign["metadata"]["ownerReferences"][0]["name"] = "digits-many"
    assert Cache().put_pod(foreign) is None
    assert Cache().put_pod({"metadata": {"name": "x", "namespace": "y", "uid": "z"}}) is None


@pytest.mark.parametrize("labels", [
    {"adaptertraining.dev/nodes": "1"}, {"adaptertraining.dev/nodes": "0"}, {"batch.kubernetes.io/job-completion-index": "7"},
    {"adaptertraining.dev/attempt": "9"},
])  # fmt: skip
def test_which_node_of_how_many_a_pod_is_no_label_can_change(labels: dict[str, str]) -> None:
    raw = raw_pod()
    raw["metadata"]["labels"] |= labels
    pod = pod_of(raw)
    assert pod is not None
    assert (pod.attempt, pod.index, pod.nodes) == (1, 0, 2)


@pytest.mark.parametrize(
    "name", ["p", "digits-1", "digits-1-0", "digits-1-x-abcde", "digits-1--abcde", "other-1-0-abcde"]
)
def test_a_pod_that_the_job_controller_did_not_name_is_no_node(name: str) -> None:
    raw = raw_pod()
    raw["metadata"]["name"] = name
    assert pod_of(raw) is None


@pytest.mark.parametrize("command", [None, [], ["--nnodes=0"], ["--nnodes=x"], ["--nnodes=99999999999"]])
def test_a_pod_that_trains_on_no_number_of_nodes_is_no_node(command: Any) -> None:
    raw = raw_pod()
    raw["spec"]["containers"][0]["command"] = command
    assert pod_of(raw) is None


def test_a_pods_last_words_reach_nobodys_terminal_as_commands() -> None:
    ended = {"exitCode": 1, "reason": "Error", "message": "\x1b]0;owned\x07\x9b2J\u202egnp.exe\r\nnext line: 数字三"}
    pod = pod_of(raw_pod(containerStatuses=[{"name": "trainer", "state": {"terminated": ended}}], reason="Evicted", message="\x1b[2J"))  # fmt: skip
    assert pod is not None
    assert pod.trainer is not None
    assert pod.trainer.message == "\\x1b]0;owned\\x07\\x9b2J\\u202egnp.exe\\x0d\nnext line: 数字三"
    assert pod.failure == Cause("Evicted", "\\x1b[2J")


def test_a_specification_too_deep_or_too_large_to_keep_is_told_and_not_kept() -> None:
    deep: Any = 1
    for _ in range(600):
        deep = [deep]
    for spec in ({"scheduling": deep}, {"image": "x" * 300_000}):
        cache = Cache()
        cache.put_job(raw_job(1, spec=spec))
        job = cache.job(KEY)
        assert job is not None
        assert job.fault is not None
        assert job.fault.startswith("spec: is ")
        assert len(job.spec) < 10


def test_an_agent_that_does_not_answer_is_told_of_after_a_minute_and_forgotten_when_it_does() -> None:
    cache = Cache()
    cache.put_job(raw_job(1))
    cache.put_pod(raw_pod())
    assert not cache.put_unreachable(KEY, "refused", NOW)
    assert not cache.put_unreachable(KEY, "refused", after(59))
    assert cache.put_unreachable(KEY, "timeout", after(60))
    assert cache.observed(KEY).unreachable == Unreachable(NOW, "timeout")
    assert cache.put_progress(KEY, Progress(step=1, updated_at=NOW), after(61))
    seen = cache.observed(KEY)
    assert (seen.unreachable, seen.answered_at) == (None, after(61))


def test_progress_is_news_when_the_step_or_the_checkpoint_is() -> None:
    cache = Cache()
    cache.put_job(raw_job(1))
    cache.put_pod(raw_pod())
    first = Progress(step=1, updated_at=NOW)
    assert cache.put_progress(KEY, first, NOW)
    assert not cache.put_progress(KEY, first.model_copy(update={"updated_at": after(5)}), after(5))
    assert cache.observed(KEY).advanced_at == NOW
    assert cache.put_progress(KEY, first.model_copy(update={"step": 2}), after(6))
    assert cache.observed(KEY).advanced_at == after(6)
