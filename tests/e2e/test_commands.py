"""`atj` against real pods: what it submits trains, and what the pods write is followed through a restart to the end."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.world import NAMESPACE, World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def command(world: World, *arguments: str | Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "KUBECONFIG": str(world.kubeconfig)}
    return subprocess.Popen(
        [sys.executable, "-m", "atj.main", *map(str, arguments), "-n", NAMESPACE], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_followed_logs_hold_every_step_through_a_restart(world: World, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(world.job("followed", steps=60)))
    said, error = command(world, "submit", file).communicate(timeout=60)
    assert said.startswith(f"{NAMESPACE}/followed: submitted"), error
    following = command(world, "logs", "followed", "-f")
    world.wait_commit("followed", 20)
    world.kubectl("delete", "pod", world.pods("followed")[1]["metadata"]["name"], "--grace-period=0", "--force")
    waited = command(world, "wait", "followed", "--timeout", "240")
    log, told = following.communicate(timeout=300)
    assert following.returncode == 0
    shown = [int(found[1]) for line in log.splitlines() if (found := re.match(r"\[0\] step (\d+)/60 ", line))]
    assert set(shown) == set(range(1, 61)), told
    assert f"{NAMESPACE}/followed: Restarting" in told
    assert waited.communicate(timeout=60)[0] == (
        f"{NAMESPACE}/followed: Complete, s3://checkpoints/followed/checkpoint-60\n"
    )
    described, _ = command(world, "describe", "followed").communicate(timeout=60)
    assert "0 of 2 charged, 1 uncharged; attempt 2" in described
