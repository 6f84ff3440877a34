"""The conditioning sequence is text, then label, then embedding."""

import torch
from torch import Tensor, nn

from adapter_api.conditions import ProjectorParams
from adapter_trainer.model.projectors import LinearProjector
from adapter_trainer.model.token_conditioners import EmbedToToken, LabelToToken, conditioning_sequence

TOKEN_DIM = 16
KEPT = torch.zeros(2, dtype=torch.bool)
FEATURES = {"label_to_token": torch.eye(3)[:2], "embed_to_token": torch.randn(2, 5)}
DROPPED = {"label_to_token": KEPT, "embed_to_token": KEPT}


def conditioners(*names: str) -> nn.ModuleDict:
    def projector(width: int, tokens: int) -> LinearProjector:
        return LinearProjector(width, TOKEN_DIM, ProjectorParams(num_tokens=tokens))

    torch.manual_seed(0)
    every = {
        "label_to_token": LabelToToken(projector(3, 2), TOKEN_DIM, "learned"),
        "embed_to_token": EmbedToToken(projector(5, 3), TOKEN_DIM, "learned"),
    }
    return nn.ModuleDict({name: every[name] for name in names})


def joined(text: Tensor | None, modules: nn.ModuleDict) -> Tensor:
    return conditioning_sequence(
        text, modules, FEATURES, DROPPED, batch_size=2, token_dim=TOKEN_DIM, like=torch.zeros(1)
    )


def test_the_order_is_text_label_embedding_however_they_were_declared() -> None:
    text, modules = torch.randn(2, 7, TOKEN_DIM), conditioners("embed_to_token", "label_to_token")
    sequence = joined(text, modules)
    assert sequence.shape == (2, 7 + 2 + 3, TOKEN_DIM)
    assert torch.equal(sequence[:, :7], text)
    assert torch.equal(sequence[:, 7:9], modules["label_to_token"](FEATURES["label_to_token"], KEPT))
    assert torch.equal(sequence[:, 9:], modules["embed_to_token"](FEATURES["embed_to_token"], KEPT))


def test_absent_parts_take_no_place() -> None:
    assert joined(None, conditioners("embed_to_token")).shape == (2, 3, TOKEN_DIM)
    assert joined(torch.zeros(2, 7, TOKEN_DIM), conditioners()).shape == (2, 7, TOKEN_DIM)


def test_without_any_token_there_is_one_that_adds_nothing() -> None:
    sequence = joined(None, conditioners())
    assert sequence.shape == (2, 1, TOKEN_DIM)
    assert not sequence.any()


def test_a_dropped_condition_keeps_its_place() -> None:
    dropped = {**DROPPED, "label_to_token": torch.tensor([True, False])}
    modules = conditioners("label_to_token")
    sequence = conditioning_sequence(
        None, modules, FEATURES, dropped, batch_size=2, token_dim=TOKEN_DIM, like=torch.zeros(1)
    )
    assert sequence.shape == (2, 2, TOKEN_DIM)
    null_tokens = modules["label_to_token"].null_tokens
    assert isinstance(null_tokens, torch.Tensor)
    assert torch.equal(sequence[0], null_tokens)
