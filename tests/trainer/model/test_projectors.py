"""Projectors give tokens, and a dropped condition gives its declared null whatever its value is."""

import pytest
import torch
from torch import Tensor

from adapter_api.conditions import ProjectorParams
from adapter_trainer.model.projectors import ConditionTokens, LinearProjector, MLPProjector, PerceiverResampler

WIDTH, TOKEN_DIM = 5, 16
PARAMS = ProjectorParams(num_tokens=3, depth=2, heads=2, hidden_dim=8)
NULLS = pytest.mark.parametrize("null", ["learned", "zeros", "encoded"])
DROPPED = torch.tensor([False, True, True])


def tokens_of(null: str, projector: type[LinearProjector] = MLPProjector) -> ConditionTokens:
    torch.manual_seed(0)
    return ConditionTokens(projector(WIDTH, TOKEN_DIM, PARAMS), TOKEN_DIM, null)


def values(seed: int = 1) -> Tensor:
    return torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("projector", [LinearProjector, MLPProjector])
def test_features_become_tokens(projector: type[LinearProjector]) -> None:
    assert projector(WIDTH, TOKEN_DIM, PARAMS)(values()).shape == (3, 3, TOKEN_DIM)


def test_a_sequence_of_any_length_becomes_as_many_tokens_as_asked_for() -> None:
    projector = PerceiverResampler(WIDTH, TOKEN_DIM, PARAMS)
    assert projector(torch.zeros(2, 9, WIDTH)).shape == projector(torch.zeros(2, 4, WIDTH)).shape == (2, 3, TOKEN_DIM)


def test_parameters_are_named_as_in_published_ip_adapters() -> None:
    assert set(LinearProjector(WIDTH, TOKEN_DIM, PARAMS).state_dict()) == {
        "proj.weight", "proj.bias", "norm.weight", "norm.bias",
    }  # fmt: skip
    mlp = MLPProjector(WIDTH, TOKEN_DIM, PARAMS).state_dict()
    assert {"proj.0.weight", "proj.2.weight", "norm.weight"} <= set(mlp)
    assert mlp["proj.0.weight"].shape == (8, WIDTH)


@NULLS
def test_a_dropped_samples_tokens_do_not_depend_on_its_value(null: str) -> None:
    condition, other = tokens_of(null), values()
    other[1:] = torch.tensor([[float("nan")], [1e30]])
    assert torch.equal(condition(values(), DROPPED)[1:], condition(other, DROPPED)[1:])
    assert torch.equal(condition(values(), DROPPED)[1], condition(values(), DROPPED)[2])


@NULLS
def test_a_kept_samples_tokens_are_the_projectors(null: str) -> None:
    condition = tokens_of(null)
    torch.testing.assert_close(condition(values(), DROPPED)[0], condition.projector(values())[0])


def test_the_three_nulls_are_what_they_say() -> None:
    learned, zeros, encoded = (tokens_of(null) for null in ("learned", "zeros", "encoded"))
    assert torch.equal(learned(values(), DROPPED)[1], learned.null_tokens)
    assert not zeros(values(), DROPPED)[1].any()
    torch.testing.assert_close(encoded(values(), DROPPED)[1], encoded.projector(torch.zeros(1, WIDTH))[0])
    assert [len(list(each.parameters())) for each in (learned, zeros, encoded)] == [7, 6, 6]


def test_a_learned_null_learns_from_dropped_samples_only() -> None:
    condition = tokens_of("learned")
    condition(values(), torch.tensor([False, False, False])).square().sum().backward()
    assert condition.null_tokens.grad is not None
    assert not condition.null_tokens.grad.any()
    condition.zero_grad()
    condition(values(), torch.tensor([True, True, True])).square().sum().backward()
    assert condition.null_tokens.grad.any()
    assert all(not parameter.grad.any() for parameter in condition.projector.parameters() if parameter.grad is not None)
