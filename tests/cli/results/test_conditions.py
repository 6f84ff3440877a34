"""`--label`, `--caption` and their kin become the rows of a picture grid, or an error that says which to use."""

from pathlib import Path

import pytest

from adapter_api.training import TrainingConfig
from atj.errors import CommandError
from atj.results.conditions import rows_of
from tests.trainer.support import tiny

CONFIG: TrainingConfig = tiny.configuration(tiny.settings())
ENCODERS = {"text_config": {"encoders": [tiny.text_encoder(Path("tokenizer"))]}}
WITH_TEXT: TrainingConfig = tiny.configuration(tiny.settings(changes={"model": {"params": ENCODERS}}))
EMBEDDED: TrainingConfig = tiny.configuration(
    tiny.settings(changes={"model": {"params": {"token_conditioners": {"embed_to_token": {"column": "shape"}}}}})
)


def test_without_a_condition_every_class_has_a_row() -> None:
    assert rows_of(CONFIG) == [{"digit": 0}, {"digit": 1}, {"digit": 2}]


def test_label_sets_the_column_that_feeds_label_to_token() -> None:
    assert rows_of(CONFIG, labels=["2", "0"]) == [{"digit": 2}, {"digit": 0}]


def test_a_label_may_be_called_by_its_name() -> None:
    columns = [{"name": "digit", "kind": "label", "names": ["none", "one", "two"]}, tiny.VECTOR_COLUMN]
    named = tiny.configuration(tiny.settings(changes={"data": {"params": {"columns": columns}}}))
    assert rows_of(named, labels=["two", "0"]) == [{"digit": 2}, {"digit": 0}]
    assert rows_of(named, conditions=["digit=one"]) == [{"digit": 1}]
    with pytest.raises(CommandError, match="digit=three: a class index is needed, or one of none, one, two"):
        rows_of(named, labels=["three"])


def test_files_are_taken_from_the_working_directory_where_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = {"style": {"column": "image"}}
    changes = {"model": {"params": {"image_encoder_config": tiny.IMAGE_ENCODER, "adapters_config": adapters}}}
    config = tiny.configuration(tiny.settings(changes=changes))
    (tmp_path / "mine.png").touch()
    monkeypatch.chdir(tmp_path)
    assert rows_of(config, conditions=["image=mine.png"]) == [{"image": str(tmp_path / "mine.png")}]
    assert rows_of(config, conditions=["image=images/3.png"]) == [{"image": "images/3.png"}]


def test_other_conditions_stand_in_every_row() -> None:
    rows = rows_of(WITH_TEXT, labels=["1", "2"], prompt="a picture")
    assert rows == [{"digit": 1, "caption": "a picture"}, {"digit": 2, "caption": "a picture"}]


@pytest.mark.parametrize(
    ("conditions", "labels", "message"),
    [
        pytest.param([], ["3"], r"label 3 is outside 0\.\.2", id="label outside the classes"),
        pytest.param(["digit=three"], [], "a class index is needed", id="label that is no number"),
        pytest.param(["size=3"], [], "there is no data column 'size'", id="unknown column"),
        pytest.param(["digit"], [], "write name=value", id="no value"),
    ],
)
def test_condition_that_does_not_fit_is_the_users_to_change(
    conditions: list[str], labels: list[str], message: str
) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        rows_of(CONFIG, labels, conditions)
    assert caught.value.exit_code == 2


def test_a_prompt_is_refused_where_nothing_reads_text() -> None:
    with pytest.raises(CommandError, match="--prompt: this model has no text encoders; it reads: digit") as caught:
        rows_of(CONFIG, prompt="a cat")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("condition", ["image=a.png", "caption=a cat", "shape=1,2,3,4,5"])
def test_a_condition_that_no_part_reads_is_refused(condition: str) -> None:
    with pytest.raises(CommandError, match=r"no part of this model reads .*; it reads: digit"):
        rows_of(CONFIG, conditions=[condition])


def test_a_vector_of_another_width_is_refused() -> None:
    assert rows_of(EMBEDDED, conditions=["shape=1,2,3,4,5"]) == [{"shape": (1.0, 2.0, 3.0, 4.0, 5.0)}]
    with pytest.raises(CommandError, match="shape=1,2,3: has 3 numbers, not 5"):
        rows_of(EMBEDDED, conditions=["shape=1,2,3"])
