"""A field that is not known is answered with the one that was meant, or with where it belongs."""

import time

import pytest

from adapter_api.document import MAX_FAULTS, InvalidDocument, parse, validate
from adapter_api.job import AdapterTrainingJob
from adapter_api.training import TrainingConfig

TRAINING = "spec:\n  output: {s3: {uri: s3://bucket/run}}\n  training:\n"


def messages(model: type[AdapterTrainingJob] | type[TrainingConfig], text: str) -> dict[str, str]:
    with pytest.raises(InvalidDocument) as refused:
        validate(model, parse(text, "job.yaml"))
    return {fault.path: fault.message for fault in refused.value.faults if "is not a field here" in fault.message}


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("data: {params: {resolutoin: 64}}", "data.params.resolutoin", "did you mean resolution?"),
        ("data: {params: {columns: [{name: a, knd: label}]}}", "data.params.columns[0].knd", "did you mean kind?"),
        ("optimization: {maxTrainSteps: 1}", "optimization.maxTrainSteps", "did you mean max_train_steps?"),
        ("optimization: {batch_size: 1}", "optimization.batch_size", "did you mean train_batch_size?"),
        ("optimization: {lr: 1}", "optimization.lr", "did you mean learning_rate?"),
        ("max_train_steps: 1", "max_train_steps", "it belongs under optimization"),
        ("data: {resolution: 64}", "data.resolution", "it belongs under data.params"),
        (
            "model: {params: {adapters_config: {style: {num_tokens: 4}}}}",
            "model.params.adapters_config.style.num_tokens",
            "it belongs under model.params.adapters_config.<name>.projector.params",
        ),
        (
            "model: {params: {adapters_config: {style: {colunm: image}}}}",
            "model.params.adapters_config.style.colunm",
            "did you mean column?",
        ),
        ("qwertz: 1", "qwertz", "check its spelling and its indentation"),
    ],
)
def test_a_training_field_is_answered_with_its_name_or_its_place(text: str, path: str, expected: str) -> None:
    assert messages(TrainingConfig, text)[path] == f"is not a field here; {expected}"


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("  resources: {cpu: 1}", "spec.resources.cpu", "it belongs under spec.resources.limits"),
        (
            "  resources: {nvidia.com/gpu: 1}",
            "spec.resources['nvidia.com/gpu']",
            "it belongs under spec.resources.limits",
        ),
        ("  gpus: 4", "spec.gpus", "ask for GPUs under spec.resources.limits, such as nvidia.com/gpu"),
        ("  replicas: 2", "spec.replicas", "did you mean nodes?"),
        ("  procs_per_node: 2", "spec.procs_per_node", "did you mean procsPerNode?"),
        ("  max_restarts: 2", "spec.max_restarts", "maxRestarts is what it is called, and belongs under spec.restart"),
    ],
)
def test_a_field_of_a_job_is_answered_with_its_name_or_its_place(text: str, path: str, expected: str) -> None:
    assert messages(AdapterTrainingJob, f"spec:\n{text}\n")[path] == f"is not a field here; {expected}"


def test_a_document_of_unknown_fields_is_refused_in_time_and_in_one_line_each() -> None:
    text = "".join(f"field_number_{number}_of_many: 1\n" for number in range(5000))
    started = time.process_time()
    with pytest.raises(InvalidDocument) as caught:
        validate(TrainingConfig, parse(text, "job.yaml"))
    assert time.process_time() - started < 10
    assert len(caught.value.faults) == MAX_FAULTS
    assert not any("\n" in fault.message for fault in caught.value.faults)
    assert caught.value.more > 0
