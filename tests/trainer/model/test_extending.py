"""A new projector, and a third token conditioner: a line of the contract and a class each, and everything knows them."""

from pathlib import Path
from typing import Annotated, Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from adapter_api.columns import columns_of
from adapter_api.conditions import (
    AdapterConfig,
    Feed,
    ProjectorConfig,
    ProjectorKind,
    ProjectorParams,
    TokenConditionerConfig,
    TokenConditionersConfig,
)
from adapter_api.document import Document, InvalidDocument, validate
from adapter_api.model import ModelConfig, ModelParams
from adapter_api.training import TrainingConfig
from adapter_trainer.model import weights
from adapter_trainer.model.projectors import PROJECTORS, ConditionTokens, LinearProjector, Projector
from adapter_trainer.model.token_conditioners import TOKEN_CONDITIONERS
from adapter_trainer.publishing.card import card_of, record_of
from adapter_trainer.training import loop, setup
from tests.trainer.support import tiny

# --- what an author adds ---


class GatedProjector(Projector):
    """A linear projector, each of whose tokens a gate lets through."""

    def __init__(self, input_dim: int, token_dim: int, params: ProjectorParams) -> None:
        super().__init__(input_dim, token_dim, params)
        self.proj = nn.Linear(input_dim, params.num_tokens * token_dim)
        self.gate = nn.Linear(input_dim, params.num_tokens)

    def forward(self, features: Tensor) -> Tensor:
        """Tokens [B, num_tokens, token_dim]."""
        tokens: Tensor = self.proj(features).unflatten(1, (self.num_tokens, -1))
        gated: Tensor = tokens * self.gate(features).sigmoid()[..., None]
        return gated


class PoseToToken(ConditionTokens):
    """Vectors of joints [B, width] -> tokens [B, T, token_dim]."""


class MoreConditioners(TokenConditionersConfig):
    pose_to_token: Annotated[TokenConditionerConfig | None, Feed(("vector",), "pose")] = None


class MoreProjectors(ProjectorConfig):
    target: ProjectorKind | Literal["Gated"] = "Linear"  # type: ignore[assignment]  # wider than it was


# --- how the contract holds them, which a change of the contract itself need not repeat ---


class MoreAdapters(AdapterConfig):
    projector: MoreProjectors = MoreProjectors()


class Params(ModelParams):
    adapters_config: dict[str, MoreAdapters] = {}  # type: ignore[assignment]  # wider than it was
    token_conditioners: MoreConditioners = MoreConditioners()


class Model(ModelConfig):
    params: Params = Params()


class Extended(TrainingConfig):
    model: Model = Model()


PARTS = {
    "token_conditioners": {"label_to_token": None, "pose_to_token": {"params": {"num_tokens": 3}, "dropout": 0.5}},
    "adapters_config": {"look": {"column": "digit", "projector": {"target": "Gated"}}},
}


@pytest.fixture
def classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROJECTORS, "Gated", GatedProjector)
    monkeypatch.setitem(TOKEN_CONDITIONERS, "pose_to_token", PoseToToken)


def extended(data: Path, columns: object = ...) -> Extended:
    given = tiny.settings(data, {"model": {"params": PARTS}, "optimization": {"max_train_steps": 2}})
    if columns is not ...:
        given["data"]["params"]["columns"] = columns
    return validate(Extended, Document("extended.yaml", given))


def test_they_are_trained_and_fed_by_the_columns_that_fit(data: Path, tmp_path: Path, classes: None) -> None:
    run = setup.prepare(extended(data), setup.RunOptions(tmp_path, show=lambda _: None))
    model = run.state.model
    assert {path.field: column.name for path, column in model.columns.items()} == {
        "model.params.token_conditioners.pose_to_token": "shape", "model.params.adapters_config.look": "digit",
    }  # fmt: skip
    assert model.condition_dropouts() == {"pose_to_token": 0.5, "adapters.look": 0.1}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loop.take_step(run)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    for name in (
        "adapters.look.tokens.projector.gate.weight",
        "token_conditioners.pose_to_token.projector.norm.weight",
    ):
        assert name in changed


def test_a_new_projector_is_kept_as_a_part_and_claims_to_load_nowhere(
    data: Path, tmp_path: Path, classes: None
) -> None:
    config = extended(data)
    model = setup.prepare(config, setup.RunOptions(tmp_path, show=lambda _: None)).state.model
    files = set(weights.files_of(model, None))
    assert {"model/adapter-look", "model/pose_to_token"} <= files
    assert not any(name.startswith("ip_adapter") for name in files)
    record = record_of(model, config, step=1, averaged=False, data=None, versions={})
    assert [adapter.diffusers for adapter in record.adapters] == [
        "a projector of kind GatedProjector is not known to load"
    ]
    assert record.token_columns == {"pose_to_token": "shape"}
    card = card_of(record)
    assert "layout unknown" in card
    assert "no file for pipelines; `atj sample` draws with it" in card


def test_a_new_token_conditioner_implies_a_column_and_refuses_those_that_do_not_fit(data: Path) -> None:
    alone = validate(Extended, Document("a.yaml", {"model": {"params": {"token_conditioners": {"pose_to_token": {}}}}}))
    assert [(column.name, column.kind) for column in columns_of(alone)] == [("pose", "vector")]
    with pytest.raises(InvalidDocument, match="pose_to_token: needs a data column of kind vector; declare one"):
        extended(data, [tiny.LABEL_COLUMN])


class InheritsALayout(LinearProjector):
    """Like the one that loads, and another: nobody has looked whether it loads."""


def test_a_projector_has_the_layout_that_it_names_itself() -> None:
    assert LinearProjector.layout == "base"
    assert InheritsALayout.layout == "unknown"


def test_every_name_of_the_contract_has_a_class_in_the_same_order() -> None:
    assert list(get_args(ProjectorKind)) == list(PROJECTORS)
    assert (
        list(TokenConditionersConfig.feeds()) == list(TOKEN_CONDITIONERS) == list(TokenConditionersConfig.model_fields)
    )
