"""What clusters do to pods, processes and operators: each job ends as if nothing had happened, and loses no commit."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.support.world import NAMESPACE, Plain, World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

STEPS = 180
"""Enough for a fast machine, at thirty a second, to be still training when the last fault of a test comes."""


def assert_complete(world: World, name: str) -> Plain:
    status = world.wait_state(name, "Complete")
    assert world.committed(name)[-1] == STEPS
    assert status["progress"]["step"] == STEPS
    alive = {pod["metadata"]["labels"]["adaptertraining.dev/attempt"] for pod in world.pods(name)}
    assert alive == {str(status["attempt"])}, "pods of an older attempt are left"
    return status


def test_a_job_outlives_its_processes_its_pods_and_the_operator(world: World, tmp_path: Path) -> None:
    """One after another, each killed; who follows its log sees every step, and nothing is charged."""
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(world.job("killed", STEPS)))
    said, error = world.command("submit", file).communicate(timeout=60)
    assert said.startswith(f"{NAMESPACE}/killed: submitted"), error
    world.kill(world.operator_process())  # at launch
    following = world.command("logs", "killed", "-f")
    world.wait_commit("killed", 10)

    pod = world.pods("killed")[1]["metadata"]["name"]
    trainer = next(
        p for p in world.processes(pod, "adapter_trainer.train") if "torch.distributed.run" not in p.cmdline()
    )
    world.kill(trainer)
    world.wait_commit("killed", 20)
    status = world.status("killed")
    assert (status["attempt"], status["restarts"]["total"]) == (1, 0), "torchrun restarts a process in its pod"

    world.lose_pod("killed", 1)
    world.wait_attempt("killed", 2)
    world.wait_commit("killed", world.committed("killed")[-1] + 1)

    world.lose_pod("killed", 0)
    world.wait("restarting", lambda: world.status("killed").get("attempt") == 3)
    world.kill(world.operator_process())
    waited = world.command("wait", "killed", "--timeout", "240")
    status = assert_complete(world, "killed")
    assert status["restarts"] == {"charged": 0, "uncharged": 2, "total": 2}

    log, told = following.communicate(timeout=120)
    assert following.returncode == 0
    shown = [int(found[1]) for line in log.splitlines() if (found := re.match(rf"\[0\] step (\d+)/{STEPS} ", line))]
    assert set(shown) == set(range(1, STEPS + 1)), told
    assert f"{NAMESPACE}/killed: Restarting" in told
    assert waited.communicate(timeout=60)[0] == (
        f"{NAMESPACE}/killed: Complete, s3://checkpoints/killed/checkpoint-{STEPS}\n"
    )
    described, _ = world.command("describe", "killed").communicate(timeout=60)
    assert "0 of 2 charged, 2 uncharged; attempt 3" in described


def test_a_trainer_that_is_out_of_memory_is_charged_and_told(world: World) -> None:
    resources = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "160Mi"}}
    name = world.apply(world.job("hungry", STEPS, resources=resources, nodes=1, restart={"maxRestarts": 0}))
    status = world.wait_state(name, "Failed")
    assert status["lastFailure"]["reason"] == "OutOfMemory"


def test_a_drained_node_saves_before_its_pods_go(world: World) -> None:
    name = world.apply(world.job("drained", STEPS, save_steps=1000))
    world.wait_step(name, 3)
    try:
        world.kubectl(
            "drain", "node-1", f"--pod-selector=adaptertraining.dev/job={name}", "--delete-emptydir-data", "--force",
            "--timeout=120s",
        )  # fmt: skip
        saved = world.committed(name)
        assert saved, "nothing was saved"
        assert world.status(name)["attempt"] >= 2
    finally:
        world.kubectl("uncordon", "node-1")
    status = assert_complete(world, name)
    assert status["restarts"]["charged"] == 0


def test_a_job_is_suspended_resumed_and_scaled_and_loses_no_step(world: World) -> None:
    name = world.apply(world.job("resized", STEPS, save_steps=1000))
    world.wait_step(name, 3)
    world.patch(name, {"suspend": True})
    world.kubectl("wait", "--for=condition=Suspended", f"atj/{name}", "--timeout=120s")
    assert not world.pods(name)
    saved = world.committed(name)
    assert saved
    world.patch(name, {"suspend": False})
    world.wait_step(name, saved[-1] + 1, attempt=2)
    for attempt, nodes in ((3, 3), (4, 2)):
        world.kubectl("scale", f"atj/{name}", f"--replicas={nodes}")
        world.wait_attempt(name, attempt, nodes)
        world.wait_step(name, world.committed(name)[-1] + 1, attempt)
    assert assert_complete(world, name)["restarts"]["total"] == 0


def test_a_store_that_is_away_for_a_minute_delays_commits_only(world: World) -> None:
    name = world.apply(world.job("cut-off", STEPS))
    world.wait_commit(name, 10)
    store = world.store_process()
    store.send_signal(signal.SIGSTOP)
    try:
        time.sleep(60)
    finally:
        store.send_signal(signal.SIGCONT)
    assert assert_complete(world, name)["restarts"]["total"] == 0


def test_a_job_deleted_while_it_restarts_leaves_nothing(world: World) -> None:
    name = world.apply(world.job("unwanted", STEPS))
    world.wait_commit(name, 10)
    world.lose_pod(name, 1)
    world.wait("restarting", lambda: world.status(name).get("attempt") == 2)
    world.kubectl("delete", "atj", name, "--wait=false")
    world.wait("nothing left", lambda: not world.orphans(name))
    assert world.committed(name), "what it has stored stays"
