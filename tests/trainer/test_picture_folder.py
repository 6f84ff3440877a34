"""A folder of pictures with captions beside them trains as the pairs file that it stands for."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adapter_api.data import Column, DataParams
from adapter_trainer import picture_folder
from adapter_trainer.errors import InvalidData
from adapter_trainer.table import Row, read_table
from tests.trainer.support import runs, tiny


def filled(folder: Path, captions: dict[str, str | None]) -> Path:
    """Pictures by name, each with a caption file unless its caption is None."""
    for name, caption in captions.items():
        picture = folder / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()
        if caption is not None:
            picture.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return folder


def read(root: Path, name: str = "photos", columns: tuple[Column, ...] = ()) -> list[Row]:
    return read_table(DataParams(data_root_path=str(root), pairs_file_path=name), columns)


def refused(root: Path, columns: tuple[Column, ...] = ()) -> str:
    with pytest.raises(InvalidData) as caught:
        read(root, columns=columns)
    return str(caught.value)


def test_pictures_are_read_in_the_order_of_their_paths_with_their_captions(tmp_path: Path) -> None:
    filled(
        tmp_path / "photos",
        {"b.jpg": "a dog\n", "a/2.PNG": "\ufefftwo\r\n\tlines ", "a/10.webp": "", ".trash/c.png": "gone"},
    )
    (tmp_path / "photos" / "notes.md").touch()
    assert read(tmp_path) == [
        Row(1, tmp_path / "photos/a/10.webp", "", {}),
        Row(2, tmp_path / "photos/a/2.PNG", "two lines", {}),
        Row(3, tmp_path / "photos/b.jpg", "a dog", {}),
    ]


def test_the_data_folder_itself_may_be_it(tmp_path: Path) -> None:
    filled(tmp_path, {"a.png": "a cat"})
    assert [(row.image, row.caption) for row in read(tmp_path, ".")] == [(tmp_path / "a.png", "a cat")]


def test_no_captions_at_all_are_empty_ones(tmp_path: Path) -> None:
    filled(tmp_path / "photos", {"a.png": None, "b.png": None})
    assert [row.caption for row in read(tmp_path)] == ["", ""]


def test_some_captions_that_are_missing_are_a_mistake(tmp_path: Path) -> None:
    folder = filled(tmp_path / "photos", {"a.png": "a cat", "b.png": None, "c.png": None})
    assert refused(tmp_path) == (
        f"{folder}: 2 of 3 pictures have no caption, the first is {folder / 'b.png'}; write b.txt beside it, empty where there "
        "is to be none"
    )


def test_a_caption_that_is_not_text_is_named(tmp_path: Path) -> None:
    folder = filled(tmp_path / "photos", {"a.png": "a cat"})
    (folder / "a.txt").write_bytes(b"\xff\xfe\x00")
    assert refused(tmp_path) == f"{folder / 'a.txt'}: is not UTF-8 text; save the file as UTF-8"


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    folder = filled(tmp_path / "photos", {"notes.md": None})
    assert refused(tmp_path).startswith(f"{folder}: holds no picture (.avif, .bmp, ")


def test_a_name_that_would_break_a_line_is_refused(tmp_path: Path) -> None:
    folder = filled(tmp_path / "photos", {"a\tb.png": "a cat"})
    assert refused(tmp_path) == f"{folder}/a\tb.png: has a tab or line end in its name; rename it"


def test_other_columns_need_a_table(tmp_path: Path) -> None:
    filled(tmp_path / "photos", {"a.png": "a cat"})
    message = refused(tmp_path, (Column(name="digit", kind="label"),))
    assert message.endswith("which gives pictures and captions; write a pairs file that has digit as well")


@given(st.dictionaries(st.text("abc/", min_size=1, max_size=5).filter(lambda name: "/" not in (name[0], name[-1]) and "//" not in name), st.text(max_size=20), min_size=1, max_size=6))  # fmt: skip
def test_any_captions_come_back_in_one_line(tmp_path_factory: pytest.TempPathFactory, captions: dict[str, str]) -> None:
    root = tmp_path_factory.mktemp("data")
    pictures = {f"{name}.png": caption for name, caption in captions.items()}
    filled(root / "photos", {name: caption.encode("utf-8", "replace").decode() for name, caption in pictures.items()})
    rows = read(root)
    assert len(rows) == len(pictures)
    for row in rows:
        given_caption = pictures[row.image.relative_to(root / "photos").as_posix()]
        assert row.caption == " ".join(given_caption.encode("utf-8", "replace").decode().removeprefix("\ufeff").split())


@pytest.mark.process
def test_a_run_on_a_folder_learns_what_one_on_the_same_pairs_learns(tmp_path: Path) -> None:
    data, photos = tmp_path / "data", tmp_path / "data" / "photos"
    photos.mkdir(parents=True)
    for number in range(5):
        Image.new("L", (8, 8), number * 50).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text(f"number {number}", encoding="utf-8")
    (data / "pairs.txt").write_text(picture_folder.pairs_of(photos, data, ()), encoding="utf-8")
    tokenizer = tiny.write_tokenizer(tmp_path / "tokenizer")
    losses, digests = [], []
    for name in ("photos", "pairs.txt"):
        settings = tiny.settings(
            data,
            {
                "data": {"params": {"pairs_file_path": name, "columns": []}},
                "model": {"params": {"token_conditioners": {"label_to_token": None}, "text_config": {"encoders": [tiny.text_encoder(tokenizer)]}}},
            },
        )  # fmt: skip
        output = tmp_path / f"output-{name}"
        assert runs.train_here(settings, output) == 0
        losses.append(runs.losses(output))
        card = (output / "checkpoint-3" / "README.md").read_text(encoding="utf-8")
        digests.append(next(line.rpartition(" ")[2] for line in card.splitlines() if "SHA-256" in line))
    assert losses[0] == losses[1]
    assert digests[0] == digests[1]
