"""The demonstration: what its data are, that its judges read them, and what it calls obeyed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from transformers import CLIPTokenizer

from adapter_api.columns import columns_of
from adapter_api.document import read, validate
from adapter_api.job import AdapterTrainingJob
from adapter_trainer.data.pairs_table import read_table
from demo import emoji
from demo.__main__ import HOME, LEAST_LABEL, disobedience, figures, next_commands, placed, table
from demo.emoji_drawing import ALL, CONDITIONS, CONTROL_EVERY, REAL, judged, row_of, selections
from demo.emoji_judge import EmojiJudge, Obeyed
from demo.openmoji_pictures import pictures as read_pictures
from tests.support.repository import CONFIGS

STYLES, HELD_OUT = 60, 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    emoji.write(folder, STYLES, HELD_OUT)
    return folder


def test_a_reference_tells_nothing_but_the_colours() -> None:
    found = emoji.pictures(0, 400, 7)
    by_file = {picture.file: picture for picture in found}
    pairs = [(picture, by_file[picture.reference]) for picture in found]
    assert all(one.style == other.style and one.label != other.label for one, other in pairs)
    leans = np.array([[one.lean, other.lean] for one, other in pairs])
    frames = np.array([[one.is_framed, other.is_framed] for one, other in pairs], dtype=float)
    assert abs(np.corrcoef(leans.T)[0, 1]) < 0.1
    assert abs(np.corrcoef(frames.T)[0, 1]) < 0.1


def test_held_out_pictures_have_colours_of_their_own_and_are_the_same_each_time(data: Path, tmp_path: Path) -> None:
    seen, held_out = emoji.pictures(0, STYLES, emoji.SEED), emoji.pictures(STYLES, HELD_OUT, emoji.SEED)
    assert not {picture.style for picture in seen} & {picture.style for picture in held_out}
    emoji.write(tmp_path, STYLES, HELD_OUT)
    for file in (emoji.BASE, emoji.TRAIN, emoji.HELD_OUT, held_out[0].file):
        assert (tmp_path / file).read_bytes() == (data / file).read_bytes()


def test_ink_covers_a_frame_and_what_leans(data: Path) -> None:
    (heart, *_) = emoji.shapes()
    plain, framed = (emoji.coverage(heart, 0.0, is_framed=each) for each in (False, True))
    assert plain[0].max() == 0
    assert framed[: emoji.FRAME].min() == framed[:, -emoji.FRAME :].min() == 1
    left, right = (emoji.coverage(heart, lean, is_framed=False) for lean in (-1.0, 1.0))
    assert np.abs(left - right[:, ::-1]).mean() < 0.05 < np.abs(left - right).mean()
    picture = emoji.pictures(0, STYLES, emoji.SEED)[0]
    with Image.open(data / picture.file) as image:
        corner = np.asarray(image.convert("RGB"))[0, 0] / 255
    assert np.allclose(corner, picture.style.ink if picture.is_framed else picture.style.ground, atol=0.01)


def test_both_jobs_read_the_data_and_agree_on_the_base(data: Path) -> None:
    jobs = [placed(CONFIGS / name, data.parent) for name in ("quickstart-base.yaml", "quickstart.yaml")]
    for job in jobs:
        config = job.spec.training
        rows = read_table(config.data.params, columns_of(config))
        assert len(rows) == STYLES * emoji.PICTURES
    base, adapters = (job.spec.training.model.params for job in jobs)
    assert adapters.scheduler_config == base.scheduler_config
    assert adapters.first_stage_config == base.first_stage_config
    assert adapters.unet_config.pretrained == f"{data.parent}/base"
    assert base.unet_config.train
    assert not adapters.unet_config.train
    labels = {column.name: column for column in columns_of(jobs[1].spec.training)}
    assert labels["emoji"].names == emoji.NAMES
    encoder = adapters.text_config.encoders[0]
    tokenizer = CLIPTokenizer.from_pretrained(encoder.tokenizer)
    assert tokenizer.tokenize(f"{emoji.FRAMED} {emoji.PLAIN}") == [f"{emoji.FRAMED}</w>", f"{emoji.PLAIN}</w>"]
    assert len(tokenizer) <= encoder.params.vocab_size
    assert encoder.params.max_position_embeddings == tokenizer.model_max_length == emoji.CAPTION_TOKENS


def test_the_files_as_they_stand_read_what_the_demonstration_leaves() -> None:
    for name in ("quickstart-base.yaml", "quickstart.yaml"):
        params = validate(AdapterTrainingJob, read(CONFIGS / name)).spec.training.data.params
        assert params.data_root_path == f"{HOME}/data"
    assert placed(CONFIGS / "quickstart.yaml", Path(HOME)).spec.training.data.params.data_root_path == str(
        Path(HOME, "data").resolve()
    )


def test_judges_read_real_pictures_whatever_their_colours(data: Path) -> None:
    seen, held_out = emoji.pictures(0, STYLES, emoji.SEED), emoji.pictures(STYLES, HELD_OUT, emoji.SEED)
    judge = EmojiJudge(seen, read_pictures([data / picture.file for picture in seen]))
    images = read_pictures([data / picture.file for picture in held_out])
    real = judge.obeyed(held_out, images)
    assert real.label > 0.8  # of 240 pictures to learn from; of all of them it is 1
    assert real.lean > 0.99
    assert real.word == 1
    assert max(real.ground, real.ink) < 0.01
    chance = judge.obeyed(held_out, images.roll(emoji.PICTURES + 1, 0))
    assert chance.label < 0.4
    assert abs(chance.lean) < 0.5
    assert min(chance.ground, chance.ink) > 0.2


def test_each_condition_is_dropped_and_taken_from_another_picture() -> None:
    pictures = emoji.pictures(0, 30, 1)
    rows = [row_of(picture, Path("data")) for picture in pictures]
    found = selections(rows)
    assert next(iter(found)) == ALL
    assert len(found) == 1 + 2 * len(CONDITIONS)
    for title, condition in CONDITIONS.items():
        for row, dropped, other in zip(rows, found[f"no {title}"], found[f"another {title}"], strict=True):
            assert dropped == {name: value for name, value in row.items() if name != condition.column}
            assert {**other, condition.column: row[condition.column]} == row
    styles = [picture.style for picture in pictures]
    references = [row["reference"] for row in found["another reference"]]
    assert all(
        pictures[emoji.PICTURES * int(str(file)[-10:-6])].style != style
        for file, style in zip(references, styles, strict=True)
    )


def test_controls_are_judged_beside_the_pictures_that_they_are_of(data: Path) -> None:
    held_out = emoji.pictures(STYLES, HELD_OUT, emoji.SEED)
    images = read_pictures([data / picture.file for picture in held_out])
    judge_pictures = {ALL: images, "no label": images[::CONTROL_EVERY]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji, "STYLES", STYLES)
        found = judged(judge_pictures, held_out, data)
    assert set(found) == {ALL, "no label", REAL}
    assert found[ALL] == found[REAL]
    assert found["no label"].ground < 0.01


GOOD = Obeyed(label=0.93, lean=0.95, ground=0.07, ink=0.09, word=1.0)
BAD = Obeyed(label=0.1, lean=0.0, ground=0.7, ink=0.7, word=0.5)


def outcome(own: Obeyed) -> dict[str, Obeyed]:
    others = {f"{how} {title}": BAD for title in CONDITIONS for how in ("no", "another")}
    return {ALL: own, **others, REAL: Obeyed(1.0, 1.0, 0.0, 0.0, 1.0)}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"label": LEAST_LABEL - 0.01}, "label 84.0%, at least 85% is expected"),
        ({"lean": 0.79}, "lean 0.79, at least 0.8 is expected"),
        ({"ground": 0.3, "ink": 0.2}, "colour error 0.250, at most 0.233 is expected, a third of another reference's"),
        ({"word": 0.89}, "word 89.0%, at least 90% is expected"),
    ],
    ids=["all obeyed", "label", "lean", "reference", "word"],
)
def test_each_condition_has_to_be_obeyed(change: dict[str, float], fault: str | None) -> None:
    assert disobedience(outcome(replace(GOOD, **change))) == ([] if fault is None else [fault])


def test_the_table_has_a_line_for_each_condition_and_fits_80_columns() -> None:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(table(outcome(GOOD)))
    head, *lines = shown.get().splitlines()
    assert head.split()[-4:] == ["given", "dropped", "another's", "real"]
    assert [line.split()[0] for line in lines] == ["reference", "reference", "label", "lean", "word"]
    assert lines[2].split()[-4:] == ["93.0%", "10.0%", "10.0%", "100.0%"]
    assert figures(outcome(GOOD))["controlAccuracy"] == BAD.label


def test_the_next_commands_name_the_folder() -> None:
    lines = next_commands(Path("there")).splitlines()[1:]
    assert [line.split()[:2] for line in lines] == [["atj", "sample"], ["atj", "export"], ["atj", "run"]]
    assert all("there" in line for line in lines[:2])
