"""The CRD is what the models say, and what the API server calls structural."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapter_api.crd import FILES, crd, text
from tests.support.repository import REPOSITORY


@pytest.mark.parametrize("file", FILES, ids=str)
def test_the_file_is_what_the_models_say(file: Path) -> None:
    assert (REPOSITORY / file).read_text(encoding="utf-8") == text(), "run `make generate`"


def schema() -> dict[str, Any]:
    found: dict[str, Any] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def fields(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, inner in node.get("properties", {}).items():
        yield f"{path}.{name}", inner
        yield from fields(inner, f"{path}.{name}")
    for part in ("items", "additionalProperties"):
        if isinstance(node.get(part), dict):
            yield from fields(node[part], f"{path}[]")


def test_every_field_says_what_it_means() -> None:
    silent = [
        path for path, node in fields(schema()) if not node.get("description", "").partition("Default:")[0].strip()
    ]
    assert silent == [".metadata"]


def test_every_value_has_one_type() -> None:
    for path, node in fields(schema()):
        is_free = "x-kubernetes-preserve-unknown-fields" in node or "x-kubernetes-int-or-string" in node
        assert is_free or "type" in node, path
        assert not {"$ref", "oneOf", "const", "title"} & set(node), path


def test_only_what_kubernetes_itself_defines_or_two_shapes_share_is_free() -> None:
    free = {path for path, node in fields(schema()) if "x-kubernetes-preserve-unknown-fields" in node}
    unet = ".spec.training.model.params.unet_config.params"
    assert free == {
        f"{unet}.layers_per_block", f"{unet}.transformer_layers_per_block", f"{unet}.attention_head_dim",
        ".spec.training.optimization.mixed_precision",
    }  # fmt: skip


def test_an_unquoted_no_of_yaml_1_1_is_one_of_the_values() -> None:
    (field,) = (node for path, node in fields(schema()) if path.endswith(".mixed_precision"))
    assert field["enum"] == ["no", "fp16", "bf16", False]


def test_no_bound_is_larger_than_what_the_api_server_compares_without_overflow() -> None:
    for path, node in fields(schema()):
        assert all(abs(node.get(bound, 0)) <= 2**53 for bound in ("minimum", "maximum")), path
