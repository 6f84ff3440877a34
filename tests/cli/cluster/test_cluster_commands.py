"""`atj submit|list|describe|logs|suspend|resume|scale|delete|wait`, on both planes; the jobs' states are set by the test."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapter_api.document import read
from tests.cli.support.command import Atj, PreloadedAtj
from tests.operator.support.api_server import path_of
from tests.operator.support.on_plane import OnPlane
from tests.operator.support.planes import Plane
from tests.support.jobs import quickstart
from tests.support.repository import QUICKSTART

NOW = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def place(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    place = OnPlane(plane, "atj-commands", tmp_path_factory.mktemp("plane"))
    yield place
    place.close()


@pytest.fixture
def there(plane: Plane, tmp_path: Path) -> PreloadedAtj:
    return PreloadedAtj(tmp_path, {"KUBECONFIG": str(plane.kubeconfig)})


def names(place: OnPlane) -> set[str]:
    return {job["metadata"]["name"] for job in place.items("adaptertrainingjobs")}


def add(place: OnPlane, name: str) -> None:
    """A job as `atj submit` creates it, without a process that a test of another command need not start."""
    place.api.call("POST", path_of("adaptertrainingjobs", place.namespace), quickstart(name))


def set_status(place: OnPlane, name: str, state: str, **more: object) -> None:
    condition = {"lastTransitionTime": NOW, "message": "the reason why"}
    conditions = [
        {"type": "Accepted", "status": "True", "reason": "Valid", **condition},
        {"type": "Running", "status": "True" if state == "Running" else "False", "reason": "Seen", **condition},
    ]
    if state in {"Complete", "Failed", "Suspended"}:
        conditions.append({"type": state, "status": "True", "reason": "OutOfMemory", **condition})
    status = {"state": state, "attempt": 2, "conditions": conditions, **more}
    place.patch_job(name, {"status": status}, "/status")


def test_submitted_job_is_the_file_with_the_given_name_and_nodes(there: PreloadedAtj, place: OnPlane) -> None:
    done = there("submit", QUICKSTART, "--name", "named", "--nodes", "3", "-n", place.namespace)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{place.namespace}/named: submitted"
    spec = place.job("named")["spec"]
    assert spec["nodes"] == 3
    assert spec["output"]["s3"]["uri"] == read(QUICKSTART).data["spec"]["output"]["s3"]["uri"]


def test_of_a_file_with_a_secret_the_job_alone_is_submitted_under_the_name_that_the_cluster_makes(
    there: PreloadedAtj, place: OnPlane, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    job = quickstart("made")
    job["metadata"] = {"generateName": "made-"}
    file.write_text(f"kind: Secret\nmetadata: {{name: keys}}\n---\n{json.dumps(job)}\n")
    done = there("submit", file, "-n", place.namespace)
    assert done.returncode == 0, done.stderr
    assert "also holds Secret keys (line 1), which is left alone" in " ".join(done.stderr.split())
    (made,) = (name for name in names(place) if name.startswith("made-"))
    assert done.stdout.splitlines()[0] == f"{place.namespace}/{made}: submitted"


def test_second_job_of_a_name_is_refused_with_what_to_do(there: PreloadedAtj, place: OnPlane) -> None:
    add(place, "twice")
    done = there("submit", QUICKSTART, "--name", "twice", "-n", place.namespace)
    assert done.returncode == 2
    assert "already (Pending)" in done.stderr
    assert "--name" in done.stderr


def test_fault_of_the_file_is_named_with_its_line_and_nothing_is_created(
    there: PreloadedAtj, place: OnPlane, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(QUICKSTART.read_text().replace("nodes: 2", "nodes: 0"))
    done = there("submit", file, "--name", "faulty", "-n", place.namespace)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{file}:")
    assert "spec.nodes" in done.stderr
    assert "faulty" not in names(place)


def test_dry_run_asks_the_cluster_and_creates_nothing(there: PreloadedAtj, place: OnPlane) -> None:
    done = there("submit", QUICKSTART, "--name", "never", "--dry-run", "-n", place.namespace)
    assert (done.returncode, done.stdout) == (0, f"{place.namespace}/never: the cluster would accept it\n")
    assert "never" not in names(place)


def test_name_that_the_cluster_refuses_is_explained_without_a_traceback(there: PreloadedAtj, place: OnPlane) -> None:
    done = there("submit", QUICKSTART, "--name", "No_Name", "-n", place.namespace)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "No_Name" in done.stderr


def test_list_shows_state_step_loss_and_checkpoint(there: PreloadedAtj, place: OnPlane) -> None:
    add(place, "listed")
    set_status(
        place, "listed", "Running", nodes={"ready": 2}, restarts={"charged": 1, "total": 1},
        progress={"step": 30, "totalSteps": 100, "percent": 30.0, "loss": 0.125, "eta": "2m5s"},
        checkpoint={"step": 20, "uri": "s3://b/listed/checkpoint-20", "committedAt": NOW, "bytes": 1},
    )  # fmt: skip
    done = there("list", "-n", place.namespace)
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split() for line in done.stdout.splitlines()]
    assert header == ["NAME", "STATE", "STEP", "LOSS", "ETA", "CHECKPOINT", "NODES", "RESTARTS", "AGE"]
    assert ["listed", "Running", "30/100", "0.125", "2m5s", "20", "2/2", "1"] in [row[:8] for row in rows]


def test_list_of_all_namespaces_names_them_and_json_is_what_the_api_gives(there: PreloadedAtj, place: OnPlane) -> None:
    add(place, "anywhere")
    everywhere = there("list", "-A")
    assert [place.namespace, "anywhere"] in [line.split()[:2] for line in everywhere.stdout.splitlines()]
    found = json.loads(there("list", "-n", place.namespace, "-o", "json").stdout)
    assert "anywhere" in {job["metadata"]["name"] for job in found}


def test_describe_tells_why_a_job_failed_and_how_its_log_ended(there: PreloadedAtj, place: OnPlane) -> None:
    add(place, "broken")
    failure = {
        "reason": "OutOfMemory", "node": 1, "exitCode": 137, "message": "raise resources.limits.memory", "at": NOW,
        "attempt": 2, "charged": True, "logTail": "step 12\nKilled",
    }  # fmt: skip
    interruption = {"attempt": 1, "reason": "Preempted", "at": NOW, "message": "9 bytes were left", "step": 87, "resumedStep": 60, "lostSteps": 27}  # fmt: skip
    set_status(place, "broken", "Failed", lastFailure=failure, interruptions=[interruption], lostSteps=27)
    told = there("describe", "broken", "-n", place.namespace).stdout
    assert "Failed=True" in told
    assert "Last failure: OutOfMemory on node 1, exit code 137, attempt 2" in told
    assert "Interruptions (steps trained again: 27)\n  attempt 1: Preempted at step 87" in told
    assert "27 steps lost\n    9 bytes were left" in told
    assert "  raise resources.limits.memory\n  Its log ended with:\n    step 12\n    Killed" in told
    found = json.loads(there("describe", "broken", "-n", place.namespace, "-o", "json").stdout)
    assert found["job"]["status"]["lastFailure"]["exitCode"] == 137
    assert (found["pods"], found["events"]) == ([], [])


def test_suspend_resume_and_scale_change_the_specification(there: PreloadedAtj, place: OnPlane) -> None:
    add(place, "changed")

    def spec() -> tuple[object, object]:
        found = place.job("changed")["spec"]
        return found.get("suspend"), found["nodes"]

    assert there("suspend", "changed", "-n", place.namespace).returncode == 0
    assert spec() == (True, 2)
    assert there("resume", "changed", "-n", place.namespace).returncode == 0
    assert there("scale", "changed", "--nodes", "5", "-n", place.namespace).returncode == 0
    assert spec() == (False, 5)


def test_job_that_has_ended_is_not_changed_silently_without_effect(there: PreloadedAtj, place: OnPlane) -> None:
    add(place, "over")
    set_status(place, "over", "Complete")
    done = there("suspend", "over", "-n", place.namespace)
    assert done.returncode == 2
    assert "has ended (Complete)" in done.stderr


def test_wait_ends_with_the_job_and_its_exit_code_tells_how(there: PreloadedAtj, place: OnPlane) -> None:
    for name in ("won", "lost", "open"):
        add(place, name)
    set_status(place, "won", "Complete")
    set_status(place, "lost", "Failed")
    won = there("wait", "won", "-n", place.namespace)
    found = json.loads(there("wait", "won", "-n", place.namespace, "-o", "json").stdout)
    assert found["status"]["state"] == "Complete"
    assert (won.returncode, won.stdout) == (0, f"{place.namespace}/won: Complete\n")
    lost = there("wait", "lost", "-n", place.namespace)
    assert (lost.returncode, lost.stderr) == (1, f"error: {place.namespace}/lost: OutOfMemory: the reason why\n")
    late = there("wait", "open", "--timeout", "0", "-n", place.namespace)
    assert late.returncode == 1
    assert "Pending after 0 s, not Complete" in late.stderr


def test_wait_sees_what_happens_while_it_waits(there: PreloadedAtj, place: OnPlane) -> None:
    add(place, "later")
    command = ("wait", "later", "--for", "Running", "-n", place.namespace)
    code, said = there.said(*command, meanwhile=lambda: set_status(place, "later", "Running"))
    assert (code, said.splitlines()[-1]) == (0, f"{place.namespace}/later: Running")


def test_deleted_job_is_gone_when_the_command_returns(there: PreloadedAtj, place: OnPlane) -> None:
    add(place, "unwanted")
    done = there("delete", "unwanted", "-n", place.namespace)
    assert (done.returncode, done.stdout) == (0, f"{place.namespace}/unwanted: deleted\n")
    assert "unwanted" not in names(place)


@pytest.mark.parametrize("command", ["describe", "suspend", "logs", "wait", "delete"])
def test_job_that_does_not_exist_is_named(there: PreloadedAtj, place: OnPlane, command: str) -> None:
    done = there(command, "nobody", "-n", place.namespace)
    assert done.returncode == 2
    assert '"nobody" not found' in done.stderr


def test_logs_of_a_job_without_pods_say_where_it_stands(there: PreloadedAtj, place: OnPlane) -> None:
    add(place, "silent")
    done = there("logs", "silent", "-n", place.namespace)
    assert done.returncode == 1
    assert "no container has begun yet (Pending)" in done.stderr


def test_logs_of_a_failed_job_whose_pods_are_gone_come_from_its_status(there: PreloadedAtj, place: OnPlane) -> None:
    add(place, "gone")
    failure = {"reason": "Crashed", "message": "", "at": NOW, "attempt": 2, "logTail": "ValueError: no"}
    set_status(place, "gone", "Failed", lastFailure=failure)
    done = there("logs", "gone", "-n", place.namespace)
    assert (done.returncode, done.stdout) == (0, "ValueError: no\n")


def test_namespace_of_the_file_and_of_the_option_must_agree(
    there: PreloadedAtj, place: OnPlane, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(QUICKSTART.read_text().replace("metadata:", "metadata:\n  namespace: elsewhere"))
    done = there("submit", file, "-n", place.namespace)
    assert done.returncode == 2
    assert "metadata.namespace is elsewhere" in done.stderr


@pytest.mark.process
def test_without_a_cluster_the_way_to_name_one_is_told(tmp_path: Path) -> None:
    nowhere = Atj(tmp_path, {"KUBECONFIG": str(tmp_path / "none"), "KUBERNETES_SERVICE_HOST": ""})
    done = nowhere("list")
    assert done.returncode == 2
    assert "--kubeconfig, --context or KUBECONFIG" in done.stderr


def test_cluster_that_does_not_answer_is_named(plane: Plane, tmp_path: Path) -> None:
    kubeconfig = json.loads(plane.kubeconfig.read_text())
    kubeconfig["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    done = Atj(tmp_path)("list", "--kubeconfig", tmp_path / "kubeconfig")
    assert done.returncode == 1
    assert "the cluster at https://127.0.0.1:9 does not answer" in done.stderr
