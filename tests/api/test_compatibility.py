"""A checkpoint is resumed only by a configuration that computes the same."""

from typing import Any

import pytest

from adapter_api.compatibility import differences
from adapter_api.document import Document, validate
from adapter_api.training import TrainingConfig


def config(**changes: Any) -> TrainingConfig:
    data: dict[str, Any] = {"model": {"params": {"token_conditioners": {"label_to_token": {}}}}, **changes}
    return validate(TrainingConfig, Document("a.yaml", data))


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint": {"save_steps": 7, "keep_last": 1}},
        {"logging": {"log_steps": 1}},
        {"sampling": {"steps": 3}},
        {"optimization": {"num_train_epochs": 9, "max_train_steps": 7}},
        {"optimization": {"train_batch_size": 2, "gradient_accumulation_steps": 4}},
        {"data": {"params": {"data_root_path": "/elsewhere", "num_workers": 2, "verify": "none"}}},
    ],
    ids=str,
)
def test_how_long_how_grouped_and_how_observed_a_run_is_may_change(changes: dict[str, Any]) -> None:
    assert differences(config(), config(**changes)) == []


def test_what_changes_the_result_is_named_with_both_values() -> None:
    given = config(seed=1, optimization={"learning_rate": 0.5}, data={"params": {"resolution": 512}})
    assert differences(config(), given) == [
        "data.params.resolution: the checkpoint has 1024, this run has 512",
        "optimization.learning_rate: the checkpoint has 0.0001, this run has 0.5",
        "seed: the checkpoint has 0, this run has 1",
    ]


def test_a_module_that_only_one_side_has_is_one_difference() -> None:
    other = config(model={"params": {"token_conditioners": {"embed_to_token": {}}}})
    lines = differences(config(), other)
    assert [line.split(":")[0] for line in lines] == [
        "model.params.token_conditioners.embed_to_token",
        "model.params.token_conditioners.label_to_token",
    ]
    assert all(len(line) < 300 for line in lines)
