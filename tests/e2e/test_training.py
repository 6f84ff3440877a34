"""A job on real pods from apply to Complete, and what its user sees and may do meanwhile."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load

from tests.e2e.support.world import RELEASE, SYSTEM, World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

Plain = dict[str, Any]


def test_the_chart_answers_its_own_test(world: World) -> None:
    assert "Phase:          Succeeded" in world.helm("test", RELEASE, "-n", SYSTEM)


@pytest.fixture(scope="module")
def trained(world: World) -> Plain:
    """The job that ran to its end undisturbed."""
    name = world.apply(world.job("plain", steps=20))
    world.wait_state(name, "Running")
    columns = world.kubectl("get", "atj", name).splitlines()[0].split()
    assert columns == ["NAME", "STATE", "STEP", "LOSS", "ETA", "CHECKPOINT", "RESTARTS", "AGE"]
    world.wait_state(name, "Complete")
    world.kubectl("wait", "--for=condition=Complete", f"atj/{name}", "--timeout=5s")
    return world.job("plain", steps=20)


def test_complete_means_committed_and_no_restart_was_needed(world: World, trained: Plain) -> None:
    name = trained["metadata"]["name"]
    status = world.status(name)
    assert world.committed(name)[-1] == 20
    assert (status["checkpoint"]["step"], status["progress"]["step"], status["restarts"]["total"]) == (20, 20, 0)
    assert status["checkpoint"]["uri"] == "s3://checkpoints/plain/checkpoint-20"


def test_the_cluster_trains_the_same_weights_as_a_laptop(world: World, trained: Plain, tmp_path: Path) -> None:
    local = json.loads(json.dumps(trained))
    spec = local["spec"]
    del spec["data"]
    spec["output"] = {"s3": {"uri": "s3://checkpoints/local"}}
    data = tmp_path / "data"
    for found in world.s3.list_objects_v2(Bucket="datasets", Prefix="digits/")["Contents"]:
        file = data / found["Key"].removeprefix("digits/")
        file.parent.mkdir(parents=True, exist_ok=True)
        world.s3.download_file("datasets", found["Key"], str(file))
    spec["training"]["data"]["params"]["data_root_path"] = str(data)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(local))
    command = [sys.executable, "-m", "atj.main", "run", str(tmp_path / "job.yaml"), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    here = tmp_path / "out" / "node-0" / "output" / "checkpoint-20"
    compared = 0
    for file in (here / "model").rglob("*.safetensors"):
        key = f"plain/checkpoint-20/{file.relative_to(here).as_posix()}"
        there = load(world.s3.get_object(Bucket="checkpoints", Key=key)["Body"].read())
        mine = load(file.read_bytes())
        assert mine.keys() == there.keys()
        for tensor in mine:
            assert (mine[tensor] == there[tensor]).all(), f"{file.name}: {tensor}"
            compared += 1
    assert compared > 10


def test_two_jobs_at_once_do_not_disturb_each_other(world: World) -> None:
    names = [world.apply(world.job(name, steps=10, nodes=1)) for name in ("left", "right")]
    for name in names:
        assert world.wait_state(name, "Complete")["restarts"]["total"] == 0
        assert world.committed(name)[-1] == 10


@pytest.fixture(scope="module")
def mistaken(world: World) -> dict[str, str]:
    """Jobs whose users have made a mistake, all at once."""
    wrong, lost = world.job("wrong", nodes=1), world.job("lost", nodes=1)
    wrong["spec"]["training"]["data"]["params"]["pairs_file_path"] = "absent.txt"
    lost["spec"]["output"]["s3"]["uri"] = "s3://no-such-bucket/lost"
    imageless = world.job("imageless", nodes=1, image="registry.invalid/nothing:1")
    return {job["metadata"]["name"]: world.apply(job) for job in (wrong, lost, imageless)}


def test_a_configuration_that_fits_no_data_fails_once_and_says_why(world: World, mistaken: dict[str, str]) -> None:
    status = world.wait_state(mistaken["wrong"], "Failed")
    assert status["lastFailure"]["reason"] == "InvalidData"
    assert "absent.txt" in status["lastFailure"]["message"]
    assert status["restarts"]["total"] == 0


def test_a_missing_bucket_fails_once_and_says_why(world: World, mistaken: dict[str, str]) -> None:
    status = world.wait_state(mistaken["lost"], "Failed")
    assert "the bucket does not exist; create it" in status["lastFailure"]["message"]
    assert status["restarts"]["total"] == 0


def test_an_image_that_does_not_exist_is_pending_with_a_remedy(world: World, mistaken: dict[str, str]) -> None:
    name = mistaken["imageless"]
    world.wait("pending for its image", lambda: _running_reason(world, name) in {"ErrImagePull", "ImagePullBackOff"})
    status = world.status(name)
    assert status["state"] == "Pending"
    running = next(condition for condition in status["conditions"] if condition["type"] == "Running")
    assert "Check spec.image (registry.invalid/nothing:1)" in running["message"]
    world.kubectl("delete", "atj", name)
    world.wait("gone", lambda: not world.orphans(name))


def test_a_job_that_no_model_accepts_is_refused_at_once(world: World) -> None:
    job = world.job("refused")
    job["spec"]["training"]["model"]["params"]["token_conditioners"]["label_to_token"]["column"] = "absent"
    with pytest.raises(Exception, match="absent"):
        world.apply(job)


def _running_reason(world: World, name: str) -> str | None:
    conditions = world.status(name).get("conditions", [])
    return next((condition["reason"] for condition in conditions if condition["type"] == "Running"), None)
