"""What makes a step faster changes no result, and nothing is computed that no trained weight needs."""

from functools import partial
from pathlib import Path

import pytest
import torch

from adapter_trainer.model import compute
from adapter_trainer.training import loop, setup
from tests.trainer.support import tiny
from tests.trainer.support.runs import losses, tensors_of, train_here

ADAPTERS = {
    "unet_config": {"train": False},
    "token_conditioners": {"label_to_token": None},
    "adapters_config": {
        "up": {"column": "digit", "null_condition": "learned", "layers": ["up_blocks"]},
        "late": {"column": "shape", "null_condition": "learned", "layers": ["up_blocks"]},
    },
}


@pytest.mark.process
def test_compiled_blocks_train_the_same(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without inductor, whose C++ compiler takes half a minute: what is traced and what is shared are the same.
    monkeypatch.setattr(compute, "compile_blocks", partial(compute.compile_blocks, backend="aot_eager"))
    given = tiny.settings(data, {"model": {"params": ADAPTERS}})
    assert train_here(given, tmp_path / "eager") == 0
    compiled = tiny.merged(given, {"model": {"params": {"unet_config": {"compile": True}}}})
    assert train_here(compiled, tmp_path / "compiled") == 0
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=1e-4)
    names = [sorted(tensors_of(tmp_path / kind / "checkpoint-3")) for kind in ("eager", "compiled")]
    assert names[0] == names[1]


@pytest.mark.process
def test_equal_blocks_share_what_was_compiled(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(compute, "compile_blocks", partial(compute.compile_blocks, backend=backend))
    unet = {"compile": True, "params": {"transformer_layers_per_block": 3}}
    given = tiny.settings(data, {"model": {"params": tiny.merged(ADAPTERS, {"unet_config": unet})}})
    assert train_here(given, tmp_path / "output") == 0
    blocks = 3 * 4
    assert 0 < len(compiled) <= blocks // 2


def test_nothing_below_the_first_adapted_layer_is_kept_for_a_backward_pass(data: Path, tmp_path: Path) -> None:
    config = tiny.configuration(tiny.settings(data, {"model": {"params": ADAPTERS}}))
    run = setup.prepare(config, setup.RunOptions(tmp_path, show=lambda _: None))
    needs_gradient: dict[str, bool] = {}
    for name, block in run.state.model.unet.named_children():
        for index, part in enumerate(block if isinstance(block, torch.nn.ModuleList) else [block]):

            def note(_: object, __: object, output: object, name: str = f"{name}.{index}") -> None:
                first = output[0] if isinstance(output, tuple) else output
                needs_gradient[name] = isinstance(first, torch.Tensor) and first.requires_grad

            part.register_forward_hook(note)
    loop.take_step(run)
    frozen = [name for name, needs in needs_gradient.items() if not needs]
    assert {"conv_in.0", "down_blocks.0", "down_blocks.1", "mid_block.0"} <= set(frozen)
    assert needs_gradient["up_blocks.0"]
    trained = {parameter for _, parameter in run.state.trained()}
    others = [parameter for parameter in run.state.model.parameters() if parameter not in trained]
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in others)
