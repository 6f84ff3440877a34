"""The worst document of the allowed size is refused soon, with some of its faults; shown by a search for it."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter_api.document import MAX_BYTES, MAX_DEPTH, MAX_FAULTS, MAX_NODES, InvalidDocument, parse, plain, validate
from adapter_api.job import AdapterTrainingJob
from tests.operator.support.builders import job

LIMIT_SECONDS = 0.5
WHOLE: dict[str, Any] = job().model_dump(mode="json", by_alias=True, exclude_none=True)
WHOLE.pop("status")


def places(value: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [so_far, *(way for key, each in inner for way in places(each, (*so_far, key)))]


PLACES = [way for way in places(WHOLE["spec"]) if way]
LONE: list[Any] = [None, True, -1, 0.5, 2**70, "x", "s3://", "a b", [], {}, [[]], {"a": 1}, "$(x)"]
COUNT = MAX_NODES - 2000


def filled(way: tuple[Any, ...], lone: Any, shape: str, count: int) -> dict[str, Any]:
    """The whole job with very many values at one place."""
    values: dict[str, Any] = {
        "fields": {f"f{number}": lone for number in range(count)},
        "list": [lone] * count,
        "lists": [[lone] * 100] * (count // 101),
        "objects": [{"name": lone, "value": lone}] * (count // 3),
    }
    changed: dict[str, Any] = {**WHOLE, "spec": copied(WHOLE["spec"])}
    holder = changed["spec"]
    for step in way[:-1]:
        holder = holder[step]
    if isinstance(holder[way[-1]], dict) and shape == "fields":
        holder[way[-1]] = {**holder[way[-1]], **values[shape]}
    else:
        holder[way[-1]] = values[shape]
    return changed


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    return [copied(each) for each in value] if isinstance(value, list) else value


def cost(document: dict[str, Any]) -> tuple[float, str]:
    """CPU seconds that a document takes, and what it is told."""
    begun = time.process_time()
    try:
        validate(AdapterTrainingJob, plain(document, "job"))
    except InvalidDocument as error:
        return time.process_time() - begun, str(error)
    return time.process_time() - begun, ""


@settings(max_examples=40)
@given(
    way=st.sampled_from(PLACES), lone=st.sampled_from(LONE), shape=st.sampled_from(["fields", "list", "lists", "objects"])
)  # fmt: skip
def test_no_document_of_the_allowed_size_takes_half_a_second(way: tuple[Any, ...], lone: Any, shape: str) -> None:
    seconds, told = cost(filled(way, lone, shape, COUNT))
    assert seconds < LIMIT_SECONDS
    assert 0 < len(told.splitlines()) <= MAX_FAULTS + 1
    assert len(told) < 100_000


def test_very_many_faults_are_counted_and_some_of_them_told() -> None:
    seconds, told = cost(filled(("pod",), 1, "fields", COUNT) if ("pod",) in PLACES else {**WHOLE, "spec": {**WHOLE["spec"], **{f"f{n}": 1 for n in range(COUNT)}}})  # fmt: skip
    assert seconds < LIMIT_SECONDS
    lines = told.splitlines()
    assert len(lines) == MAX_FAULTS + 1
    assert lines[-1] == f"and {COUNT - MAX_FAULTS} more"


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ([0] * (MAX_NODES + 1), f"holds more than {MAX_NODES} values"),
        ("x" * (MAX_BYTES + 1), f"holds more than {MAX_BYTES} characters"),
        ({"x" * (MAX_BYTES + 1): 1}, f"holds more than {MAX_BYTES} characters"),
        (nested(MAX_DEPTH + 1), f"nested deeper than {MAX_DEPTH} levels"),
        (nested(100_000), f"nested deeper than {MAX_DEPTH} levels"),
    ],
    ids=["values", "text", "key", "depth", "great-depth"],
)
def test_a_document_that_others_have_read_is_held_to_the_limits_of_a_file(spec: Any, told: str) -> None:
    with pytest.raises(InvalidDocument, match=told):
        plain(spec, "job", at=("spec",))


def test_a_file_with_very_many_faults_is_answered_soon() -> None:
    text = "".join(f"f{number}: 1\n" for number in range(MAX_NODES - 1))
    begun = time.process_time()
    document = parse(text, "job.yaml")
    read_in = time.process_time() - begun
    with pytest.raises(InvalidDocument) as refused:
        validate(AdapterTrainingJob, document)
    assert time.process_time() - begun - read_in < LIMIT_SECONDS
    assert str(refused.value).splitlines()[-1].startswith("and ")
