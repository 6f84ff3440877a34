"""What `atj run` says when the object store refuses or is not there, and when the disk is full."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.support.seaweed import BUCKET, KEY, SECRET, seaweed
from tests.cli.support.command import Atj, MakeJob, write_yaml

pytestmark = pytest.mark.process

NOBODY_LISTENS = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with seaweed(tmp_path_factory.mktemp("store")) as url:
        yield url


@pytest.fixture
def user(tmp_path: Path) -> Atj:
    return Atj(tmp_path, {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET})


def written(folder: Path, job: MakeJob, url: str, bucket: str = BUCKET, **spec: object) -> Path:
    plain = job("faults", steps=4, save_steps=2)
    plain["spec"] |= spec
    plain["spec"]["output"]["s3"] = {"uri": f"s3://{bucket}/faults", "endpointURL": url}
    return write_yaml(folder / "job.yaml", plain)


def test_wrong_secret_key_is_the_users_to_change(user: Atj, job: MakeJob, endpoint: str) -> None:
    user.variables["AWS_SECRET_ACCESS_KEY"] = "another"
    result = user("run", written(user.folder, job, endpoint), "--output", user.folder / "out")
    assert result.returncode == 2
    assert f"{endpoint}: the secret key is wrong; check AWS_SECRET_ACCESS_KEY" in result.stderr


def test_missing_bucket_is_the_users_to_change(user: Atj, job: MakeJob, endpoint: str) -> None:
    result = user("run", written(user.folder, job, endpoint, bucket="absent"), "--output", user.folder / "out")
    assert result.returncode == 2
    assert "s3://absent/faults" in result.stderr
    assert "the bucket does not exist; create it, or correct the address" in result.stderr


def test_unreachable_store_is_named_before_anything_starts(user: Atj, job: MakeJob) -> None:
    result = user("run", written(user.folder, job, NOBODY_LISTENS), "--output", user.folder / "out")
    assert result.returncode == 1
    assert f"{NOBODY_LISTENS}: the endpoint cannot be reached" in result.stderr
    assert not list((user.folder / "out").rglob("node-0-train.log"))


@pytest.mark.root
def test_full_disk_is_told_and_more_space_lets_the_run_finish(
    user: Atj, job: MakeJob, endpoint: str, tmp_path: Path
) -> None:
    file, disk = written(user.folder, job, endpoint, restart={"maxRestarts": 0}), tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], check=True)
    try:
        result = user("run", file, "--output", disk / "out")
        assert result.returncode == 1, result.stdout + result.stderr
        assert "checkpoint-2: no space left on the device; free some" in result.stderr
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        result = user("run", file, "--output", disk / "out")
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"Newest checkpoint: s3://{BUCKET}/faults/checkpoint-4" in result.stdout
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
