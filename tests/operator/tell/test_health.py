"""What tools see that know no AdapterTrainingJobs: kstatus' own library, and Argo CD's health check of docs/."""

import json
import subprocess
from typing import Any

import lupa
import pytest

from adapter_api.status import JobStatus, Restarts
from adapter_operator.decide.decision import Decision, State
from adapter_operator.observe.observed import Observed
from adapter_operator.tell import health, job_status
from tests.cluster.tools import Tools
from tests.operator.support.builders import NOW, after, job, status
from tests.support.repository import REPOSITORY

Plain = dict[str, Any]
SEEN = {
    "Pending": ("InProgress", "Progressing"),
    "Queued": ("InProgress", "Progressing"),
    "Starting": ("InProgress", "Progressing"),
    "Running": ("InProgress", "Progressing"),
    "Restarting": ("InProgress", "Progressing"),
    "Suspending": ("InProgress", "Progressing"),
    "Suspended": ("Current", "Suspended"),
    "Complete": ("Current", "Healthy"),
    "Failed": ("Failed", "Degraded"),
    "Invalid": ("Failed", "Degraded"),
    "Running with an edit that is not valid": ("Failed", "Degraded"),
    "edited since": ("InProgress", "Progressing"),
}
"""What kstatus and Argo CD are to make of a job."""


def of_state(state: State, reason: str = "", before: JobStatus | None = None) -> JobStatus:
    """The status of a job that is decided to be in a state."""
    decision = Decision(state, reason or state.value, f"why {state.value}", 1, Restarts(), None, NOW)
    return job_status.status(job(status=before or JobStatus()), Observed(), decision, NOW)


def shown(case: str) -> Plain:
    """The object as it is stored."""
    generation = 1
    match case:
        case "Invalid":
            told = job_status.invalid(JobStatus(), 1, "spec.nodes: too few", NOW)
        case "Running with an edit that is not valid":
            told, generation = job_status.invalid(of_state(State.RUNNING), 2, "spec.nodes: too few", NOW), 2
        case "edited since":
            told, generation = of_state(State.COMPLETE), 2
        case "Suspending":
            told = of_state(State.SUSPENDED, health.SUSPENDING)
        case _:
            told = of_state(State(case))
    return {
        "apiVersion": "adaptertraining.dev/v1alpha1", "kind": "AdapterTrainingJob",
        "metadata": {"name": "digits", "namespace": "team", "generation": generation},
        "status": told.model_dump(mode="json", by_alias=True, exclude_none=True),
    }  # fmt: skip


def test_every_state_is_one_of_those_that_others_are_shown() -> None:
    assert {state.value for state in State} <= set(SEEN)


@pytest.mark.cluster
def test_kstatus_takes_every_state_for_what_it_is(cluster_tools: Tools) -> None:
    given = "".join(json.dumps(shown(case)) + "\n" for case in SEEN)
    done = subprocess.run([str(cluster_tools.path("kstatus"))], input=given, capture_output=True, text=True, check=True)
    told = dict(zip(SEEN, (line.split()[0] for line in done.stdout.splitlines()), strict=True))
    assert told == {case: kstatus for case, (kstatus, _) in SEEN.items()}
    assert "why Failed" in done.stdout


@pytest.mark.parametrize("case", SEEN)
def test_argo_cd_takes_every_state_for_what_it_is(case: str) -> None:
    assert argo_cd(shown(case))[0] == SEEN[case][1]


@pytest.mark.parametrize("told", [None, {}, {"observedGeneration": 1}])
def test_a_job_that_nobody_has_seen_yet_is_progressing(told: Plain | None) -> None:
    unseen = {"metadata": {"generation": 1}, **({} if told is None else {"status": told})}
    assert argo_cd(unseen) == ("Progressing", "the operator has not seen this specification yet")


def argo_cd(obj: Plain) -> tuple[str, str]:
    """Status and message by the check that docs/ has, with the object where Argo CD puts it."""
    runtime = lupa.LuaRuntime(unpack_returned_tuples=True)
    runtime.globals().obj = runtime.table_from(obj, recursive=True)
    found = runtime.execute((REPOSITORY / "docs" / "argocd" / "health.lua").read_text())
    return str(found["status"]), str(found["message"])


@pytest.mark.parametrize("case", SEEN)
def test_each_condition_says_which_specification_it_answers(case: str) -> None:
    told = shown(case)["status"]
    assert {each["observedGeneration"] for each in told["conditions"]} == {told["observedGeneration"]}


def test_only_what_is_true_of_reconciling_and_stalled_is_told() -> None:
    for case in SEEN:
        found = {each["type"]: each["status"] for each in shown(case)["status"]["conditions"]}
        assert {found.get("Reconciling", "True"), found.get("Stalled", "True")} == {"True"}
        assert sum(name in found for name in ("Reconciling", "Stalled")) == (found["Ready"] == "False")


def test_a_job_that_becomes_valid_again_stalls_no_longer() -> None:
    refused = job_status.invalid(JobStatus(), 1, "spec.nodes: too few", NOW)
    mended = of_state(State.STARTING, before=refused)
    assert {c.type for c in mended.conditions} == {"Accepted", "Running", "Ready", "Reconciling"}


def test_readiness_keeps_the_time_of_its_last_change() -> None:
    first = of_state(State.STARTING)
    decision = Decision(State.RUNNING, "Training", "", 1, Restarts(), None, NOW)
    later = job_status.status(job(status=first), Observed(), decision, after(60))
    times = {c.type: c.last_transition_time for c in later.conditions}
    assert (times["Ready"], times["Reconciling"], times["Running"]) == (NOW, NOW, after(60))


def test_a_message_of_any_length_is_told_in_part() -> None:
    long = health.facts(State.FAILED, "OutOfMemory", "x" * 100_000)
    assert {len(message) for _, _, message in long.values()} == {health.MAX_MESSAGE}


def test_the_status_of_an_earlier_version_gets_what_it_lacks() -> None:
    before = status("Running")
    assert not {c.type for c in before.conditions} & set(health.TYPES)
    assert job_status.is_urgent(before, of_state(State.RUNNING, "Training", before))
