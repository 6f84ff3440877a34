"""The commands of a node, whole: the cluster and a laptop start exactly these."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from adapter_api.base import MAX_INT
from adapter_api.document import parse, validate
from adapter_api.job import AdapterTrainingJob
from adapter_api.launch import NodePlace, epoch, launch

PLACE = NodePlace(
    index=0, rendezvous_host="digits-1-0.digits", rendezvous_port=29400, address="10.0.0.7", work="/work", data="/data"
)


def job(**spec: Any) -> AdapterTrainingJob:
    training = {
        "model": {"params": {"token_conditioners": {"label_to_token": {}}}},
        "checkpoint": spec.pop("checkpoint", {}),
    }
    data = {
        "apiVersion": "adaptertraining.dev/v1alpha1",
        "kind": "AdapterTrainingJob",
        "metadata": {"name": "digits"},
        "spec": {"training": training, "output": {"s3": {"uri": "s3://checkpoints/digits"}}, **spec},
    }
    return validate(AdapterTrainingJob, parse(json.dumps(data), "job.json"))


def test_one_node_without_anything_optional() -> None:
    commands = launch(job(), "uid", 1, PLACE)
    agent = ("--attempt=1", "--node=0", "--nodes=1", "--world-size=1", "--work=/work")
    output = "--output-uri=s3://checkpoints/digits"
    assert commands.restore.argv == ("python", "-m", "adapter_agent", "restore", *agent, output)
    assert commands.sync.argv == ("python", "-m", "adapter_agent", "sync", *agent, output, "--listen=10.0.0.7:0")
    assert commands.train.argv == (
        "python", "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=1", "--rdzv-backend=c10d",
        "--rdzv-id=uid-1", "--rdzv-endpoint=digits-1-0.digits:29400", "--rdzv-conf=is_host=true,join_timeout=3600",
        "--local-addr=10.0.0.7", "--max-restarts=3", "--shutdown-timeout=120",
        "-m", "adapter_trainer.train", "--config", "/work/training.yaml", "--output_dir", "/work/output",
        "--resume_from_checkpoint", "latest", "--keep_last", "all",
    )  # fmt: skip


def test_the_second_of_two_nodes_with_data_and_another_runs_checkpoint() -> None:
    both = job(
        nodes=2,
        procsPerNode=4,
        data={"s3": {"uri": "s3://datasets/digits", "endpointURL": "http://127.0.0.1:8333", "region": "here-1"}},
        output={"s3": {"uri": "s3://checkpoints/digits", "endpointURL": "http://127.0.0.1:8333"}},
        resumeFrom={"uri": "s3://checkpoints/earlier", "step": 1000},
        checkpoint={"keep_last": 3},
    )
    place = replace(PLACE, index=1, address="10.0.0.8", agent_port=8080, threads=2, python="/opt/python")
    commands = launch(both, "uid", 7, place)
    agent = ("--attempt=7", "--node=1", "--nodes=2", "--world-size=8", "--work=/work")
    output = ("--output-uri=s3://checkpoints/digits", "--output-endpoint-url=http://127.0.0.1:8333")
    assert commands.restore.argv == (
        "/opt/python", "-m", "adapter_agent", "restore", *agent, *output,
        "--data-uri=s3://datasets/digits", "--data-endpoint-url=http://127.0.0.1:8333", "--data-region=here-1",
        "--data-dir=/data", "--resume-uri=s3://checkpoints/earlier", "--resume-step=1000",
    )  # fmt: skip
    assert commands.sync.argv == (
        "/opt/python", "-m", "adapter_agent", "sync", *agent, *output, "--listen=10.0.0.8:8080", "--keep-last=3",
        "--deletion-delay-seconds=300",
    )  # fmt: skip
    assert commands.train.argv == (
        "/opt/python", "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=4", "--rdzv-backend=c10d",
        "--rdzv-id=uid-7", "--rdzv-endpoint=digits-1-0.digits:29400", "--rdzv-conf=is_host=false,join_timeout=3600",
        "--local-addr=10.0.0.8", "--max-restarts=3", "--shutdown-timeout=120",
        "-m", "adapter_trainer.train", "--config", "/work/training.yaml", "--output_dir", "/work/output",
        "--resume_from_checkpoint", "latest", "--keep_last", "all", "--data_root_path", "/data",
    )  # fmt: skip
    environment = {
        "ADAPTER_TRAINING_JOB": "digits",
        "ADAPTER_TRAINING_RUN_ID": "uid",
        "ADAPTER_TRAINING_ATTEMPT": "7",
        "JOB_COMPLETION_INDEX": "1",
    }
    assert commands.restore.env == commands.sync.env == environment
    assert commands.train.env == {**environment, "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}


def test_data_on_a_claim_are_mounted_and_not_staged() -> None:
    commands = launch(job(data={"pvc": {"claimName": "digits"}}), "uid", 1, PLACE)
    assert not any(argument.startswith("--data") for argument in commands.restore.argv)
    assert commands.train.argv[-2:] == ("--data_root_path", "/data")


def test_every_attempt_meets_at_a_rendezvous_of_its_own() -> None:
    meetings = {launch(job(), "uid", attempt, PLACE).train.argv[6] for attempt in (1, 2, 3)}
    assert meetings == {"--rdzv-id=uid-1", "--rdzv-id=uid-2", "--rdzv-id=uid-3"}


def test_commands_share_no_environment() -> None:
    commands = launch(job(), "uid", 1, PLACE)
    commands.restore.env["ADDED"] = "1"
    assert "ADDED" not in commands.sync.env


CREATED = datetime(2026, 12, 1, 12, 0, 0, tzinfo=UTC)


def test_epochs_order_the_attempts_of_a_job_and_those_of_the_job_that_takes_its_place() -> None:
    next_job = CREATED + timedelta(seconds=1)
    attempts = (1, 2, 99_999, 100_000, 100_001, 1_999_999)
    epochs = [epoch(created, attempt) for created in (CREATED, next_job) for attempt in attempts]
    assert epochs == sorted(set(epochs))


def test_epochs_are_above_every_claim_that_an_older_build_has_stored() -> None:
    stored = int(CREATED.timestamp()) * 100_000 + 99_999
    assert epoch(CREATED, 1) > stored
    assert epoch(datetime(2112, 1, 1, tzinfo=UTC), 1_999_999) <= MAX_INT
