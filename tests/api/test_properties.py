"""What holds for every input, tried with many."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from adapter_api.compatibility import differences
from adapter_api.document import Document, Fault, InvalidDocument, dump, dump_json, parse, validate
from adapter_api.job import AdapterTrainingJob
from adapter_api.launch import NodePlace, launch
from adapter_api.training import TrainingConfig

YAML_PIECES = st.sampled_from(
    ["a", ":", " ", "\n", "- ", "? ", "[", "]", "{", "}", ",", "&a ", "*a", "!", "!!int ", "|", ">", "'", '"', "#", "%",
     "<<", "~", "...", "---\n", "1e9", "0x1", ".inf", "\t", "\\", "\x00", "\x85", "\u2028", "\ufeff", "\u202e", "ä"]
)  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([10**400, -0.0])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
LABEL: dict[str, Any] = {"model": {"params": {"token_conditioners": {"label_to_token": {}}}}}
JOB: dict[str, Any] = {
    "apiVersion": "adaptertraining.dev/v1alpha1",
    "kind": "AdapterTrainingJob",
    "metadata": {"name": "digits"},
    "spec": {"training": LABEL, "output": {"s3": {"uri": "s3://checkpoints/digits"}}},
}


@given(st.text() | st.binary() | st.lists(YAML_PIECES, max_size=40).map("".join))
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    with suppress(InvalidDocument):
        assert isinstance(parse(text, "any.yaml").data, dict)


def places(model: BaseModel, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every field of a model and of the models in it, by the names that files use."""
    found = []
    for name, field in type(model).model_fields.items():
        path = (*at, field.alias or name)
        value = getattr(model, name)
        found += [path, *(places(value, path) if isinstance(value, BaseModel) else [])]
    return found


def replaced(data: Any, path: tuple[str, ...], value: object) -> dict[str, Any]:
    head, *rest = path
    inner = data.get(head) if isinstance(data, dict) else None
    return {**(data or {}), head: replaced(inner, tuple(rest), value) if rest else value}


def refusals(model: type[BaseModel], data: object) -> list[Fault]:
    """What is wrong with the data; fails on any other exception than the one that users get."""
    with suppress(InvalidDocument):
        validate(model, Document("any", data))
        return []
    with pytest.raises(InvalidDocument) as refused:
        validate(model, Document("any", data))
    assert refused.value.faults
    return refused.value.faults


PLACES = places(validate(AdapterTrainingJob, Document("job", JOB)))


@settings(max_examples=300)
@given(st.sampled_from(PLACES), ANYTHING)
def test_anything_anywhere_is_accepted_or_refused_with_a_reason(path: tuple[str, ...], value: object) -> None:
    faults = refusals(AdapterTrainingJob, replaced(JOB, path, value))
    assert all(fault.message and len(str(fault)) < 2000 for fault in faults)


@given(ANYTHING)
def test_anything_as_a_whole_is_accepted_or_refused(data: object) -> None:
    refusals(TrainingConfig, data)
    refusals(AdapterTrainingJob, data)


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
PREFIXES = st.from_regex(r"[A-Za-z0-9._=+@-]{1,10}x(/[A-Za-z0-9._=+@-]{1,10}x){0,3}", fullmatch=True)
VISIBLE = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp", "Cn")), min_size=1, max_size=30)
TEXTS = VISIBLE | st.sampled_from(["1e5", "12e45", "no", "~", "0o7", "a\nb", "a\r\nb", "- x", "# x", "a: b", "''", " "])
LOCATIONS = st.fixed_dictionaries(
    {"uri": PREFIXES.map(lambda prefix: f"s3://bucket/{prefix}")},
    optional={"region": st.just("here-1"), "endpointURL": st.sampled_from(["http://127.0.0.1:8333", "https://s3.eu"])},
)
TRAININGS = st.fixed_dictionaries(
    {"model": st.just(LABEL["model"]), "seed": st.integers(0, 2**32 - 1)},
    optional={
        "optimization": st.fixed_dictionaries({"learning_rate": st.floats(1e-30, 1e30)}),
        "data": st.fixed_dictionaries({"params": st.fixed_dictionaries({"data_root_path": TEXTS})}),
        "checkpoint": st.fixed_dictionaries({"keep_last": st.none() | st.integers(1, 2**53 - 1)}),
        "sampling": st.fixed_dictionaries(
            {"rows": st.lists(st.fixed_dictionaries({"caption": TEXTS, "label": st.integers(0, 9)}), max_size=2)}
        ),
    },
)
JOBS = st.builds(
    lambda name, spec: validate(AdapterTrainingJob, Document("job", {**JOB, "metadata": {"name": name}, "spec": spec})),
    NAMES,
    st.fixed_dictionaries(
        {"training": TRAININGS, "output": st.fixed_dictionaries({"s3": LOCATIONS})},
        optional={
            "nodes": st.integers(1, 4096),
            "procsPerNode": st.just("auto") | st.integers(1, 64),
            "data": st.fixed_dictionaries({"s3": LOCATIONS}),
            "resumeFrom": LOCATIONS,
            "pod": st.fixed_dictionaries(
                {"env": st.lists(st.fixed_dictionaries({"name": st.just("A"), "value": TEXTS}), max_size=1)}
            ),
        },
    ),
)


@settings(max_examples=25)
@given(JOBS)
def test_a_valid_job_survives_being_written_and_read(job: AdapterTrainingJob) -> None:
    assert validate(AdapterTrainingJob, parse(dump(job), "job.yaml")) == job
    assert validate(AdapterTrainingJob, parse(dump_json(job), "job.yaml")) == job
    assert validate(AdapterTrainingJob, parse(json.dumps(job.model_dump(mode="json")), "job.json")) == job


@given(JOBS, st.integers(1, 10_000), st.integers(0, 4095))
def test_what_users_write_stays_inside_one_argument(job: AdapterTrainingJob, attempt: int, index: int) -> None:
    place = NodePlace(index, "host", 29400, "127.0.0.1", "/work", "/data")
    commands = launch(job, "uid", attempt, place)
    for command in (commands.restore, commands.sync, commands.train):
        assert all(argument and argument.isprintable() and " " not in argument for argument in command.argv)
        assert sum("s3://" in argument for argument in command.argv) == sum("-uri=s3://" in a for a in command.argv)
    assert f"--output-uri={job.spec.output.s3.uri}" in commands.sync.argv


@given(JOBS)
def test_a_configuration_does_not_differ_from_itself(job: AdapterTrainingJob) -> None:
    assert differences(job.spec.training, job.spec.training) == []
