"""What a job asks of the cluster and does not use is told."""

from typing import Any

import pytest

from adapter_api.job_notes import notes_on_job
from tests.operator.support.builders import job


def noted(**spec: Any) -> list[str]:
    return notes_on_job(job(spec))


@pytest.mark.parametrize(
    ("resource", "count", "told"),
    [
        ("nvidia.com/mig-1g.10gb", 3, "a pod trains on one part of a GPU, 2 of 3 stay idle; ask for 1"),
        ("nvidia.com/gpu.shared", 2, "a pod trains on one part of a GPU, 1 of 2 stays idle; ask for 1"),
    ],
)
def test_parts_of_a_gpu_that_stay_idle_are_told(resource: str, count: int, told: str) -> None:
    assert noted(resources={"limits": {resource: count}}) == [f"spec.resources.limits[{resource}]: {told}"]
    assert noted(resources={"limits": {resource: 1}}) == []


def test_gpus_without_a_process_are_told() -> None:
    gpus = {"limits": {"nvidia.com/gpu": 4}}
    assert noted(resources=gpus) == []
    (note,) = noted(resources=gpus, procsPerNode=3)
    assert note.startswith("spec.procsPerNode: 3 of 4 GPUs train, 1 stays idle")


def test_devices_that_train_nothing_are_none_that_stay_idle() -> None:
    assert noted(resources={"limits": {"rdma/hca": 4}}) == []
