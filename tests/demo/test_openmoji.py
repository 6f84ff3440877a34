"""The emoji demonstration: what it reads of Unicode's and OpenMoji's files, and that its configuration holds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from transformers import CLIPTokenizer

from adapter_api.document import read, validate
from adapter_api.training import TrainingConfig
from adapter_trainer.data.images import reference_image
from demo import openmoji, openmoji_network
from demo.openmoji_run import CONDITIONS, configuration, evenly, table
from tests.support.repository import CONFIGS

LISTED = """\
# group: Smileys & Emotion
# subgroup: face-smiling
1F600                                                  ; fully-qualified     # 😀 E1.0 grinning face
263A                                                   ; unqualified         # ☺ E0.6 smiling face
# group: People & Body
# subgroup: hand-fingers-open
1F44B 1F3FB                                            ; fully-qualified     # 👋🏻 E1.0 waving hand: light skin tone
1F590 FE0F                                             ; fully-qualified     # 🖐️ E0.7 hand with fingers splayed
"""


def test_each_emoji_is_listed_once_with_its_name_and_group() -> None:
    found = list(openmoji.parse(LISTED))
    assert [(each.codes, each.group) for each in found] == [
        (("1F600",), "Smileys & Emotion"),
        (("1F590", "FE0F"), "People & Body"),
    ]
    assert found[0].caption == "grinning face face smiling"


def test_line_art_has_lines_and_no_colour() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg"><g id="color"><path fill="red"/></g>'
        '<g id="line"><path stroke="#000"/></g></svg>'
    )
    assert "red" not in openmoji.line_art(svg)
    assert "#000" in openmoji.line_art(svg)


def test_a_few_emoji_become_samples_that_the_configuration_reads(tmp_path: Path) -> None:
    groups = openmoji.write(tmp_path, 20)
    assert "Smileys & Emotion" in groups
    rows = [line.split("\t") for line in (tmp_path / openmoji.PAIRS).read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 16
    features = np.load(tmp_path / rows[0][3])
    assert features.shape == (openmoji_network.WIDTH,)
    with Image.open(tmp_path / rows[0][0]) as picture, Image.open(tmp_path / rows[0][4]) as lines:
        assert picture.size == lines.size == (openmoji.SIDE, openmoji.SIDE)
        assert picture.tobytes() != lines.tobytes()
        empty = reference_image(Image.new("RGB", lines.size, lines.convert("RGB").getpixel((0, 0))), openmoji.SIDE)
        assert np.abs(empty).max() < 0.01  # as an empty reference is
    settings = configuration(CONFIGS / "openmoji.yaml", tmp_path)
    assert len(settings["sampling"]["rows"]) >= 2  # type: ignore[index]
    encoder = settings["model"]["params"]["text_config"]["encoders"][0]["params"]  # type: ignore[index]
    assert encoder["vocab_size"] == openmoji.VOCABULARY
    assert encoder["max_position_embeddings"] == openmoji.CAPTION_TOKENS


def test_words_of_the_captions_are_tokens_and_other_words_are_made_of_parts(tmp_path: Path) -> None:
    captions = ["grinning face", "face with tears", "winking face", "grinning cat"] * 5
    openmoji.write_tokenizer(tmp_path, captions)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("grinning face") == ["grinning</w>", "face</w>"]
    assert len(tokenizer) <= openmoji.VOCABULARY
    parts = tokenizer.tokenize("zebra 7")
    assert len(parts) > 2
    assert tokenizer.unk_token not in parts
    assert "".join(parts).replace("</w>", "") == "zebra7"


def test_every_condition_of_the_configuration_is_in_the_table() -> None:
    model = validate(TrainingConfig, read(CONFIGS / "openmoji.yaml")).model
    assert {"text", *(path.condition for path in model.conditioned)} == set(CONDITIONS)


def test_the_table_says_what_is_drawn_and_lost_with_which_conditions() -> None:
    titles = [condition.title for condition in CONDITIONS.values()]
    worth = {"distance": 0.25, "likeness": 0.5, "group": 0.75}
    drawn = ["all four", *(f"{how} {title}" for how in ("without", "only") for title in titles), "nothing", "the emoji"]
    summary = {**{f"gain.{name}": 0.125 for name in CONDITIONS}, "worth": dict.fromkeys(drawn, worth)}
    console = Console(width=120)
    with console.capture() as shown:
        console.print(table(summary))
    lines = shown.get().splitlines()[1:]
    assert [line[:18].strip() for line in lines] == drawn
    assert all(line[18:].split()[-3:] == ["25.0%", "0.50", "75%"] for line in lines)
    assert [line[:18].strip() for line in lines if "+12.5%" in line] == [f"without {title}" for title in titles]


@pytest.mark.parametrize(
    ("count", "chosen"), [(3, ["a", "c", "e"]), (7, ["a", "b", "c", "d", "e", "f", "g"]), (9, list("abcdefg"))]
)
def test_emoji_are_chosen_evenly_over_all(count: int, chosen: list[str]) -> None:
    assert evenly(list("abcdefg"), count) == chosen
