"""What clusters do to pods, processes and operators: each job ends as if nothing had happened, and loses no commit."""

import signal
import time

import pytest

from tests.e2e.world import Plain, World

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

STEPS = 60


def assert_complete(world: World, name: str) -> Plain:
    status = world.wait_state(name, "Complete")
    assert world.committed(name)[-1] == STEPS
    assert status["progress"]["step"] == STEPS
    alive = {pod["metadata"]["labels"]["adaptertraining.dev/attempt"] for pod in world.pods(name)}
    assert alive == {str(status["attempt"])}, "pods of an older attempt are left"
    return status


@pytest.mark.parametrize("node", [0, 1])
def test_a_pod_that_is_killed_restarts_the_gang_from_the_last_commit(world: World, node: int) -> None:
    name = world.apply(world.job(f"killed-{node}", STEPS))
    world.wait_commit(name, 10)
    victim = world.pods(name)[node]["metadata"]["name"]
    world.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    world.wait_step(name, 10, attempt=2)
    status = assert_complete(world, name)
    assert status["restarts"] == {"charged": 0, "uncharged": 1, "total": 1}


def test_a_process_that_is_killed_is_restarted_in_its_pod(world: World) -> None:
    name = world.apply(world.job("process", STEPS))
    world.wait_commit(name, 10)
    pod = world.pods(name)[1]["metadata"]["name"]
    trainer = next(
        p for p in world.processes(pod, "adapter_trainer.train") if "torch.distributed.run" not in p.cmdline()
    )
    world.kill(trainer)
    status = assert_complete(world, name)
    assert (status["attempt"], status["restarts"]) == (1, {"charged": 0, "uncharged": 0, "total": 0})


def test_a_trainer_that_is_out_of_memory_is_charged_and_told(world: World) -> None:
    resources = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "160Mi"}}
    name = world.apply(world.job("hungry", STEPS, resources=resources, nodes=1, restart={"maxRestarts": 0}))
    status = world.wait_state(name, "Failed")
    assert status["lastFailure"]["reason"] == "OutOfMemory"


def test_the_operator_killed_at_launch_and_at_restart_changes_nothing(world: World) -> None:
    name = world.apply(world.job("operatorless", STEPS))
    world.kill(world.operator_process())
    world.wait_commit(name, 10)
    world.kubectl("delete", "pod", world.pods(name)[0]["metadata"]["name"], "--grace-period=0", "--force")
    world.wait("restarting", lambda: world.status(name).get("attempt") == 2)
    world.kill(world.operator_process())
    status = assert_complete(world, name)
    assert status["restarts"] == {"charged": 0, "uncharged": 1, "total": 1}


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


def test_suspend_saves_and_frees_the_pods_and_resume_goes_on(world: World) -> None:
    name = world.apply(world.job("paused", STEPS, save_steps=1000))
    world.wait_step(name, 3)
    world.patch(name, {"suspend": True})
    world.kubectl("wait", "--for=condition=Suspended", f"atj/{name}", "--timeout=120s")
    assert not world.pods(name)
    saved = world.committed(name)
    assert saved
    world.patch(name, {"suspend": False})
    world.wait_step(name, saved[-1], attempt=2)
    assert assert_complete(world, name)["restarts"]["total"] == 0


def test_scaled_jobs_save_and_go_on_at_the_new_size(world: World) -> None:
    name = world.apply(world.job("scaled", STEPS, save_steps=1000))
    world.wait_step(name, 3)
    for attempt, nodes in ((2, 3), (3, 2)):
        world.kubectl("scale", f"atj/{name}", f"--replicas={nodes}")
        world.wait_nodes(name, nodes)
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
    world.kubectl("delete", "pod", world.pods(name)[1]["metadata"]["name"], "--grace-period=0", "--force")
    world.wait("restarting", lambda: world.status(name).get("attempt") == 2)
    world.kubectl("delete", "atj", name, "--wait=false")
    world.wait("nothing left", lambda: not world.orphans(name))
