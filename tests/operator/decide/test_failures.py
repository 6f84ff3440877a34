"""What pods look like -> whose fault it is and whether trying again can help."""

from datetime import timedelta

import pytest

from adapter_operator.decide.failures import SETTLE_SECONDS, has_settled, root_cause
from adapter_operator.observe.observed import Cause, ContainerEnd
from tests.operator.support.builders import NOW, failed, pod, said


@pytest.mark.parametrize(
    ("given", "reason", "charged", "final"),
    [
        (failed(code=137, reason="OOMKilled"), "OutOfMemory", True, False),
        (failed(message=said("OutOfMemory")), "OutOfMemory", True, False),
        (failed(code=137), "Killed", True, False),
        (failed(message=said("NonFiniteLoss")), "NonFiniteLoss", True, False),
        (failed(message=said("InvalidData", 2), code=2), "InvalidData", True, True),
        (failed(message=said("InvalidConfig", 2), code=2), "InvalidConfig", True, True),
        (failed(message=said("IncompatibleCheckpoint", 2), code=2), "IncompatibleCheckpoint", True, True),
        (failed(message=said("CommunicationFailed")), "CommunicationFailed", True, False),
        (failed(message=said("Stopped", 75), code=75), "Stopped", False, False),
        (failed(message=said("NotCommitted", 75), code=75), "Stopped", False, False),
        (failed(message=said("NotCommitted", 1), code=1), "NotCommitted", True, False),
        (failed(code=137, disruption="PreemptionByScheduler"), "Preempted", False, False),
        (failed(code=137, disruption="EvictionByEvictionAPI"), "Evicted", False, False),
        (failed(code=137, disruption="DeletionByTaintManager"), "NodeLost", False, False),
        (failed(failure=Cause("Evicted", "low on memory")), "Evicted", False, False),
        (failed(failure=Cause("NodeShutdown", "")), "NodeLost", False, False),
        (failed(code=74, message="belongs to attempt 9"), "Fenced", True, True),
        (failed(code=3, message="line\nTraceback: what happened\n"), "Failed", True, False),
    ],
)
def test_a_failure_is_told_apart_charged_and_final_as_it_should(given, reason, charged, final) -> None:  # type: ignore[no-untyped-def]
    found = root_cause([given, pod(1)])
    assert found is not None
    assert (found.reason, found.is_charged, found.is_final, found.node) == (reason, charged, final, 0)


def test_a_refused_restore_is_final_and_says_what_the_agent_said() -> None:
    end = ContainerEnd(2, "Error", "INFO started\nadapter_agent: error: s3://b: the bucket does not exist", NOW)
    found = root_cause([pod(phase="Failed", is_running=False, restore=end)])
    assert found is not None
    assert (found.reason, found.message, found.is_final) == (
        "InvalidConfiguration",
        "s3://b: the bucket does not exist",
        True,
    )


def test_what_storage_refuses_a_later_attempt_is_tried_again_and_not_charged() -> None:
    end = ContainerEnd(77, "Error", "adapter_agent: error: s3://b: access denied", NOW)
    found = root_cause([pod(phase="Failed", is_running=False, restore=end)])
    assert found is not None
    assert (found.reason, found.message, found.is_charged, found.is_final) == (
        "StorageRefused",
        "s3://b: access denied",
        False,
        False,
    )


def test_a_failed_restore_is_tried_again() -> None:
    end = ContainerEnd(1, "Error", "adapter_agent: error: the endpoint cannot be reached", NOW)
    found = root_cause([pod(phase="Failed", is_running=False, restore=end)])
    assert found is not None
    assert (found.reason, found.is_final) == ("RestoreFailed", False)


def test_the_root_cause_is_not_what_survivors_report_even_if_they_are_first() -> None:
    survivor = failed(0, message=said("CommunicationFailed"), at=0)
    culprit = failed(1, code=137, reason="OOMKilled", at=2)
    found = root_cause([survivor, culprit])
    assert found is not None
    assert (found.reason, found.node) == ("OutOfMemory", 1)


def test_of_two_causes_the_first_in_time_counts() -> None:
    found = root_cause([failed(0, message=said("NonFiniteLoss"), at=5), failed(1, message=said("DiskFull"), at=3)])
    assert found is not None
    assert found.reason == "DiskFull"


def test_a_consequence_waits_for_its_cause_but_not_for_ever() -> None:
    pods = [failed(0, message=said("CommunicationFailed")), pod(1)]
    found = root_cause(pods)
    assert found is not None
    assert not has_settled(found, pods, NOW)
    assert has_settled(found, pods, NOW + timedelta(seconds=SETTLE_SECONDS))


def test_pods_that_are_well_have_no_failure() -> None:
    assert root_cause([pod(0), pod(1)]) is None
