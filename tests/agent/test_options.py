"""The command line is the one that launch writes."""

import pytest

from adapter_agent import options
from adapter_agent.storage.dialect import Dialect
from adapter_api.job import AdapterTrainingJob
from adapter_api.launch import NodePlace, launch
from adapter_api.retention import Policy
from adapter_api.sections import KeepBest
from adapter_api.sources import StoredModel

TRAINING: dict[str, object] = {"model": {"params": {"token_conditioners": {"label_to_token": {}}}}}


def job(**spec: object) -> AdapterTrainingJob:
    return AdapterTrainingJob.model_validate(
        {
            "apiVersion": "adaptertraining.dev/v1alpha1",
            "kind": "AdapterTrainingJob",
            "metadata": {"name": "digits"},
            "spec": {"training": TRAINING, "output": {"s3": {"uri": "s3://bucket/run"}}, **spec},
        }
    )


KEEP = {
    "keep_last": 3,
    "keep_every": 1000,
    "keep_best": {"metric": "loss", "mode": "max", "count": 2},
    "deletion_delay_seconds": 60,
}
PLACE = NodePlace(1, "127.0.0.1", 29500, "::1", "/work/node-1", "/data", agent_port=8080)


def test_everything_that_launch_can_write_is_understood() -> None:
    location = {"endpointURL": "http://127.0.0.1:8333", "region": "eu-1"}
    commands = launch(
        job(
            nodes=2,
            training={**TRAINING, "checkpoint": KEEP, "data": {"params": {"cache": {"uri": "s3://bucket/encodings"}}}},
            data={"s3": {"uri": "s3://datasets/digits", **location}},
            output={"s3": {"uri": "s3://bucket/run", **location}},
            resumeFrom={"uri": "s3://bucket/other", "step": 5, **location},
        ),
        "run", 4, PLACE,
    )  # fmt: skip
    restore = options.parse(commands.restore.argv[3:])
    assert isinstance(restore, options.RestoreOptions)
    assert (restore.attempt, restore.node, restore.nodes, restore.world_size) == (4, 1, 2, 2)
    assert restore.output == options.Location("s3://bucket/run", "http://127.0.0.1:8333", "eu-1")
    assert restore.data == options.Location(
        "s3://datasets/digits", "http://127.0.0.1:8333", "eu-1", "ADAPTER_TRAINING_DATA_"
    )
    encodings = options.Location("s3://bucket/encodings", "http://127.0.0.1:8333", "eu-1")
    assert (restore.cache, options.parse(commands.sync.argv[3:]).cache) == (encodings, encodings)  # type: ignore[union-attr]
    assert (str(restore.data_dir), restore.resume_step) == ("/data", 5)
    sync = options.parse(commands.sync.argv[3:])
    assert isinstance(sync, options.SyncOptions)
    assert (sync.listen, sync.drain_seconds, sync.deletion_delay_seconds) == (("::1", 8080), 600, 60)
    assert sync.keep == Policy(3, 1000, KeepBest(metric="loss", mode="max", count=2))


def test_models_in_object_storage_are_asked_for_where_and_as_the_job_says() -> None:
    params = {
        "token_conditioners": {"label_to_token": {}},
        "unet_config": {"pretrained": "s3://models/unet", "subfolder": "$(HOME), 'a'"},
    }
    training = {"model": {"params": params}}
    output = {"s3": {"uri": "s3://bucket/run", "endpointURL": "http://127.0.0.1:8333"}}
    unet = StoredModel(uri="s3://models/unet", field="model.params.unet_config.pretrained", folder="$(HOME), 'a'")
    for models, endpoint in ((None, "http://127.0.0.1:8333"), ({"endpointURL": "http://models:1"}, "http://models:1")):
        commands = launch(job(nodes=2, training=training, output=output, models=models), "run", 1, PLACE)
        restore = options.parse(commands.restore.argv[3:])
        assert isinstance(restore, options.RestoreOptions)
        assert restore.models == (unet,)
        location = options.Location("s3://models/unet", endpoint, None, "ADAPTER_TRAINING_MODELS_")
        assert restore.model_location("s3://models/unet") == location
        assert commands.train.argv[-2:] == ("--staged_models", str(restore.folders.models))
        assert not any("$(HOME)" in argument for argument in commands.restore.argv)


def test_a_job_that_says_little_is_understood() -> None:
    commands = launch(job(), "run", 1, NodePlace(0, "127.0.0.1", 29500, "127.0.0.1", "/work/node-0", "/data"))
    restore = options.parse(commands.restore.argv[3:])
    assert isinstance(restore, options.RestoreOptions)
    assert (restore.data, restore.resume, restore.output.endpoint_url) == (None, None, None)
    sync = options.parse(commands.sync.argv[3:])
    assert isinstance(sync, options.SyncOptions)
    assert (sync.listen, sync.keep) == (("127.0.0.1", 0), Policy())


def test_a_store_without_conditional_writes_is_said_to_restore_and_sync_of_the_output_alone() -> None:
    output = {"s3": {"uri": "s3://bucket/run", "conditionalWrites": False}}
    place = NodePlace(0, "127.0.0.1", 29500, "127.0.0.1", "/work/node-0", "/data")
    commands = launch(job(output=output, resumeFrom={"uri": "s3://bucket/other"}), "run", 1, place)
    restore, sync = (options.parse(command.argv[3:]) for command in (commands.restore, commands.sync))
    assert isinstance(restore, options.RestoreOptions)
    assert isinstance(sync, options.SyncOptions)
    assert restore.resume is not None
    assert (restore.output.conditional, sync.output.conditional, restore.resume.conditional) == (False, False, True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--node=2", "--node=2 counts from 0 and must be below --nodes=2"),
        ("--attempt=0", "'0' is not an integer of at least 1"),
        ("--output-uri=bucket/run", "is not an object storage address"),
        ("--data-uri=s3://bucket/data", "--data-uri and --data-dir belong together"),
        ("--resume-step=3", "--resume-step needs --resume-uri"),
        ('--model={"uri": "bucket", "field": "f"}', "uri: Value error, 'bucket' is not an object storage address"),
    ],
)
def test_wrong_options_are_named(changed: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "restore",
        "--attempt=1",
        "--node=0",
        "--nodes=2",
        "--world-size=2",
        "--work=/w",
        "--output-uri=s3://bucket/r",
    ]
    with pytest.raises(SystemExit) as ended:
        options.parse([*argv, changed])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_what_a_store_demands_reaches_every_place_that_asks_for_it() -> None:
    access = {"addressingStyle": "Virtual", "requesterPays": True}
    encryption = {"algorithm": "aws:kms", "kmsKeyID": "arn:aws:kms:eu-west-1:1:key/2"}
    commands = launch(
        job(
            nodes=2,
            training={**TRAINING, "data": {"params": {"cache": {"uri": "s3://bucket/encodings"}}}},
            data={"s3": {"uri": "s3://datasets/digits", **access}},
            output={"s3": {"uri": "s3://bucket/run", **access, "checksums": "MD5", "serverSideEncryption": encryption}},
            resumeFrom={"uri": "s3://bucket/other", **access},
        ),
        "run", 4, PLACE,
    )  # fmt: skip
    restore, sync = (options.parse(command.argv[3:]) for command in (commands.restore, commands.sync))
    assert isinstance(restore, options.RestoreOptions)
    assert isinstance(sync, options.SyncOptions)
    written = Dialect("virtual", True, "MD5", "aws:kms", "arn:aws:kms:eu-west-1:1:key/2")
    for place in (restore.output, restore.cache, sync.output, sync.cache):
        assert place is not None
        assert place.dialect == written
    for place in (restore.data, restore.resume):
        assert place is not None
        assert place.dialect == Dialect("virtual", requester_pays=True)
