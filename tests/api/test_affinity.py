"""Affinity is Kubernetes' own, field by field, and closed: a mistyped one is said, where it stands."""

import re
from typing import Any

import pytest
from kubernetes.client import models
from pydantic import BaseModel

from adapter_api import affinity, topology_spread
from adapter_api.affinity import Affinity
from adapter_api.document import InvalidDocument, parse, validate

OURS = sorted(
    (
        each
        for module in (affinity, topology_spread)
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
    ),
    key=lambda each: each.__name__,
)
THEIRS = {"PodAffinity": ("V1PodAffinity", "V1PodAntiAffinity")}


@pytest.mark.parametrize("model", OURS, ids=lambda each: each.__name__)
def test_every_model_has_the_fields_of_the_api_and_no_others(model: type[BaseModel]) -> None:
    for name in THEIRS.get(model.__name__, (f"V1{model.__name__}",)):
        fields = getattr(models, name).attribute_map
        assert {field.alias: key for key, field in model.model_fields.items()} == {
            written: key for key, written in fields.items()
        }


@pytest.mark.parametrize("model", OURS, ids=lambda each: each.__name__)
def test_every_field_holds_what_the_api_says(model: type[BaseModel]) -> None:
    for name in THEIRS.get(model.__name__, (f"V1{model.__name__}",)):
        for key, kind in getattr(models, name).openapi_types.items():
            ours = str(model.model_fields[key].annotation)
            inner = re.sub(r"^(?:List|Dict)\[(?:str, )?|\]$", "", kind)
            assert kind.startswith("List[") == ("tuple[" in ours), (name, key)
            if inner.startswith("V1"):
                meant = {"V1PodAntiAffinity": "PodAffinity"}.get(inner, inner.removeprefix("V1"))
                assert f"affinity.{meant}" in ours, (name, key)


def refusal(text: str) -> str:
    with pytest.raises(InvalidDocument) as refused:
        validate(Affinity, parse(text, "job.yaml"))
    return str(refused.value)


def test_a_mistyped_field_is_said_with_path_and_line_at_every_depth() -> None:
    told = refusal("podAffinity: {}\nnodeAffinty: {}\n")
    assert told == "job.yaml:2: nodeAffinty: is not a field here; did you mean nodeAffinity?"
    deep = "nodeAffinity:\n  requiredDuringSchedulingIgnoredDuringExecution:\n    nodeSelectorTerms:\n    - matchExpresions: []\n"
    assert refusal(deep).startswith(
        "job.yaml:4: nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpresions: "
    )


@pytest.mark.parametrize(
    ("operator", "values", "accepted"),
    [
        ("In", ["a"], True), ("In", [], False), ("NotIn", [], False), ("Exists", [], True), ("Exists", ["a"], False),
        ("DoesNotExist", ["a"], False), ("Gt", ["3"], True), ("Gt", ["-3"], True), ("Lt", ["x"], False), ("Lt", ["1", "2"], False),
        ("Equals", ["a"], False),
    ],
)  # fmt: skip
def test_operators_take_the_values_that_the_api_server_takes(
    operator: str,
    values: list[str],
    accepted: bool,  # noqa: FBT001
) -> None:
    expression = {"key": "a", "operator": operator, "values": values}
    term = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    document: dict[str, Any] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}
    if accepted:
        Affinity.model_validate(document)
    else:
        with pytest.raises(ValueError, match=r"operator|alues"):
            Affinity.model_validate(document)


def test_what_is_given_is_what_the_pod_gets() -> None:
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "namespaceSelector": {},
        "labelSelector": {"matchLabels": {"a": ""}},
    }
    given = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    assert Affinity.model_validate(given).model_dump(mode="json", exclude_defaults=True) == given
