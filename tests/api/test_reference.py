"""The reference of all fields, and the schemas for editors, are what the models say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from adapter_api.fields import fields_of, schema_of
from adapter_api.job import AdapterTrainingJob
from adapter_api.reference import PAGE, SCHEMAS, page, schema_text
from adapter_api.training import TrainingConfig
from adapter_api.units import unit_of
from tests.support.repository import CONFIGS, REPOSITORY

FIELDS = {field.path: field for field in fields_of(AdapterTrainingJob)}


def test_the_page_and_the_schemas_in_the_repository_are_those_of_the_models() -> None:
    assert (REPOSITORY / PAGE).read_text(encoding="utf-8") == page(), "run make generate"
    for file, model in SCHEMAS.items():
        assert (REPOSITORY / file).read_text(encoding="utf-8") == schema_text(model), "run make generate"


def test_every_field_is_there_and_says_what_it_means() -> None:
    assert len(FIELDS) > 350
    assert [path for path, field in FIELDS.items() if not field.meaning] == []
    assert {"spec.nodes", "spec.training.data.params.columns[].kind"} <= set(FIELDS)
    assert "spec.training.model.params.adapters_config.<name>.projector.params.num_tokens" in FIELDS
    assert {field.path for field in fields_of(TrainingConfig)} == {
        path.removeprefix("spec.training.") for path in FIELDS if path.startswith("spec.training.")
    }


def test_types_defaults_and_units_are_in_words() -> None:
    resolution = FIELDS["spec.training.data.params.resolution"]
    assert (resolution.type, resolution.default, resolution.unit) == ("integer, from 1 to 8192", "1024", "pixels")
    nodes = FIELDS["spec.nodes"]
    assert (nodes.type, nodes.default, nodes.unit) == ("integer, from 1 to 4096", "1", "pods")
    assert FIELDS["spec.output"].default == "required"
    assert FIELDS["spec.training.optimization.max_train_steps"].default == "none"
    assert FIELDS["spec.training.optimization.ema.decay"].type == "number, above 0 below 1"
    assert FIELDS["spec.training.data.params.aspect_buckets.step"].unit == "pixels"
    assert FIELDS["status.progress.step"].unit == "optimizer steps"


def test_a_new_number_has_to_state_its_unit() -> None:
    with pytest.raises(LookupError, match=r"spec\.furlongs: state the unit"):
        unit_of("spec.furlongs", "integer, from 0")
    assert unit_of("spec.name", "text") == ""


STANDARD = {
    "$defs", "$ref", "$schema", "additionalProperties", "anyOf", "const", "default", "description", "enum",
    "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength",
    "minimum", "pattern", "patternProperties", "prefixItems", "properties", "propertyNames", "required", "type", "uniqueItems",
}  # fmt: skip
"""What JSON Schema itself knows, of what ours use."""


def keywords(node: Any) -> set[str]:
    if isinstance(node, list):
        return {word for each in node for word in keywords(each)}
    if not isinstance(node, dict):
        return set()
    found = set(node)
    for key, value in node.items():
        if key in {"properties", "$defs", "patternProperties"}:
            found |= {word for each in value.values() for word in keywords(each)}
        elif key not in {"default", "enum", "const"}:
            found |= keywords(value)
    return found


def test_the_schemas_use_the_words_of_json_schema_alone_and_refuse_what_the_models_refuse() -> None:
    for model in SCHEMAS.values():
        assert keywords(schema_of(model)) <= STANDARD
    params = schema_of(TrainingConfig)["$defs"]["DataParams"]
    assert params["additionalProperties"] is False
    resolution = params["properties"]["resolution"]
    assert (resolution["minimum"], resolution["maximum"], resolution["type"]) == (1, 8192, "integer")
    assert resolution["description"].startswith("Height and width, in pixels")


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.name)
def test_every_configuration_begins_with_the_editor_s_line_for_its_schema(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=../schemas/")
    schema = (file.parent / first.partition("$schema=")[2]).resolve().relative_to(REPOSITORY.resolve())
    is_job = "kind" in yaml.safe_load(text)
    assert SCHEMAS[schema] is (AdapterTrainingJob if is_job else TrainingConfig)
