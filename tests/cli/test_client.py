"""`atj.client`: jobs on a cluster from Python, on both planes; the jobs' states are set by the test."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from adapter_api.document import InvalidDocument, read, validate
from adapter_api.job import AdapterTrainingJob
from atj.client import CommandError, Job, Jobs
from tests.cli.support.command import environment
from tests.operator.support.on_plane import OnPlane
from tests.operator.support.planes import Plane
from tests.support.jobs import quickstart
from tests.support.repository import QUICKSTART

NOW = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def place(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    place = OnPlane(plane, "atj-client", tmp_path_factory.mktemp("plane"))
    yield place
    place.close()


@pytest.fixture
def jobs(plane: Plane, place: OnPlane) -> Iterator[Jobs]:
    with Jobs(place.namespace, kubeconfig=plane.kubeconfig) as found:
        yield found


def set_state(place: OnPlane, name: str, state: str) -> None:
    condition = {"type": state, "status": "True", "reason": "OutOfMemory", "message": "why", "lastTransitionTime": NOW}
    progress = {"step": 30, "totalSteps": 100, "percent": 30.0, "loss": 0.125}
    checkpoint = {"step": 20, "uri": "s3://b/run/checkpoint-20", "committedAt": NOW, "bytes": 1}
    status = {"state": state, "attempt": 1, "conditions": [condition], "progress": progress, "checkpoint": checkpoint}
    place.patch_job(name, {"status": status}, "/status")


def test_a_job_is_submitted_from_a_file_from_plain_data_and_from_the_model(jobs: Jobs, place: OnPlane) -> None:
    assert jobs.submit(QUICKSTART, name="of-a-file", nodes=3).nodes == 3
    assert jobs.submit(quickstart("of-data")).state == "Pending"
    model = validate(AdapterTrainingJob, read(QUICKSTART))
    assert jobs.submit(model, name="of-a-model").namespace == place.namespace
    assert {"of-a-file", "of-a-model", "of-data"} <= {job.name for job in jobs.list()}
    assert place.job("of-a-model")["spec"]["training"]["seed"] == model.spec.training.seed


def test_a_dry_run_creates_nothing_and_a_second_of_a_name_is_refused(jobs: Jobs) -> None:
    jobs.submit(QUICKSTART, name="never", dry_run=True)
    with pytest.raises(CommandError, match="never"):
        jobs.get("never")
    jobs.submit(QUICKSTART, name="once")
    with pytest.raises(CommandError, match=r"already \(Pending\)"):
        jobs.submit(QUICKSTART, name="once")


def test_every_fault_of_a_job_is_in_the_error(jobs: Jobs) -> None:
    with pytest.raises(InvalidDocument) as refused:
        jobs.submit(quickstart("faulty", nodes=0, procs_per_node=1))
    assert {fault.path for fault in refused.value.faults} == {"spec.nodes", "spec.procs_per_node"}


def test_what_is_read_is_typed(jobs: Jobs, place: OnPlane) -> None:
    jobs.submit(QUICKSTART, name="read")
    assert (jobs.get("read").step, jobs.get("read").checkpoint) == (None, None)
    set_state(place, "read", "Running")
    job = jobs.get("read")
    assert (job.state, job.step, job.total_steps, job.loss) == ("Running", 30, 100, 0.125)
    assert (job.checkpoint, job.checkpoint_step, job.nodes) == ("s3://b/run/checkpoint-20", 20, 2)
    assert job.holds("Running")
    assert not job.holds("Complete")


def test_waiting_tells_progress_and_ends_with_the_condition(jobs: Jobs, place: OnPlane) -> None:
    jobs.submit(QUICKSTART, name="awaited")
    seen: list[Job] = []

    def ends(job: Job) -> None:
        seen.append(job)
        set_state(place, "awaited", "Complete")

    assert jobs.wait("awaited", timeout=60, on_progress=ends).state == "Complete"
    assert seen[0].state == "Pending"


def test_waiting_fails_with_the_job_and_with_the_time(jobs: Jobs, place: OnPlane) -> None:
    jobs.submit(QUICKSTART, name="fails")
    with pytest.raises(CommandError, match=r"Pending after 0 s, not Complete"):
        jobs.wait("fails", timeout=0)
    set_state(place, "fails", "Failed")
    with pytest.raises(CommandError, match="OutOfMemory: why"):
        jobs.wait("fails")


def test_a_job_is_suspended_resumed_scaled_and_deleted(jobs: Jobs, place: OnPlane) -> None:
    jobs.submit(QUICKSTART, name="changed")
    jobs.suspend("changed")
    assert place.job("changed")["spec"]["suspend"] is True
    jobs.resume("changed")
    jobs.scale("changed", 5)
    assert place.job("changed")["spec"]["suspend"] is False
    assert jobs.get("changed").nodes == 5
    jobs.delete("changed")
    with pytest.raises(CommandError, match="changed"):
        jobs.get("changed")


def test_followed_logs_end_with_the_job_and_unknown_jobs_have_none(jobs: Jobs, place: OnPlane) -> None:
    with pytest.raises(CommandError, match="nobody"):
        jobs.logs("nobody")
    jobs.submit(QUICKSTART, name="silent")
    threading.Timer(1.5, lambda: set_state(place, "silent", "Complete")).start()
    assert list(jobs.logs("silent", follow=True)) == []


@pytest.mark.process
def test_the_client_imports_neither_torch_nor_object_storage() -> None:
    program = "import sys, atj.client; print(sorted({'torch', 'boto3', 'numpy', 'transformers'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_examples_of_the_page_are_python_that_uses_what_there_is(tmp_path: Path) -> None:
    page = (QUICKSTART.parents[1] / "docs" / "client.md").read_text(encoding="utf-8")
    examples = [block.partition("```")[0] for block in page.split("```python\n")[1:]]
    assert len(examples) == 2
    for example in examples:
        compile(example, "client.md", "exec")
    assert yaml.safe_load(QUICKSTART.read_text())["spec"]["output"]["s3"]["uri"]
    used = {word.partition("(")[0] for word in examples[0].replace("\n", " ").split("jobs.")[1:]}
    assert used <= {name for name in dir(Jobs) if not name.startswith("_")}
