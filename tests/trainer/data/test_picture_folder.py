"""A folder of pictures with captions beside them trains as the pairs file that it stands for."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adapter_api.data import Column, DataParams
from adapter_trainer.data import picture_folder
from adapter_trainer.data.data_account import account
from adapter_trainer.data.pairs_table import Row, read_samples, read_table
from adapter_trainer.errors import InvalidData
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", [".txt", ".caption", ".json"])
def test_captions_may_be_in_utf_16_as_editors_save_unicode(tmp_path: Path, ending: str, encoding: str) -> None:
    filled(tmp_path / "photos", {"a.png": None})
    text = '{"caption": "Katze für ß"}' if ending == ".json" else "Katze für ß\r\n"
    (tmp_path / "photos" / f"a{ending}").write_bytes(text.encode(encoding))
    assert [row.caption for row in read(tmp_path)] == ["Katze für ß"]


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
        f"{folder}: 2 of 3 pictures have no caption, the first is {folder / 'b.png'}; write b.txt next to it, empty for no "
        "caption"
    )


def test_a_caption_that_is_not_text_is_named(tmp_path: Path) -> None:
    folder = filled(tmp_path / "photos", {"a.png": "a cat"})
    (folder / "a.txt").write_bytes(b"\xff\xfe\x00")
    assert refused(tmp_path) == f"{folder / 'a.txt'}: is not UTF-8 text; save the file as UTF-8"


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    folder = filled(tmp_path / "photos", {"notes.md": None})
    assert refused(tmp_path).startswith(f"{folder}: holds no picture (.apng, .avif, .bmp, ")


def test_a_name_that_would_break_a_line_is_refused(tmp_path: Path) -> None:
    folder = filled(tmp_path / "photos", {"a\tb.png": "a cat"})
    assert refused(tmp_path) == f"{folder}/a\tb.png: has a tab or line end in its name; rename it"


def test_other_columns_need_a_table(tmp_path: Path) -> None:
    filled(tmp_path / "photos", {"a.png": "a cat"})
    message = refused(tmp_path, (Column(name="digit", kind="label"),))
    assert message.endswith("which gives pictures and captions; write a pairs file that has digit as well")


# --- forms of captions ---


def write(folder: Path, **files: str) -> Path:
    """Files by name; pictures are empty."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def captions(root: Path, **params: Any) -> list[tuple[str, ...]]:
    table = read_samples(DataParams(data_root_path=str(root), pairs_file_path="photos", **params), ())
    return [row.captions for row in table.rows]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "a cat"),
        ("a.TXT", "\ufeffa cat\r\n"),
        ("a.caption", "a cat\n"),
        ("a.json", '{"caption": "a cat", "caption_short": "cat"}'),
        ("a.png.txt", "a cat"),
        ("a.png.caption", "a cat"),
    ],
)
def test_captions_are_read_in_every_form_that_trainers_write(tmp_path: Path, name: str, content: str) -> None:
    write(tmp_path / "photos", **{"a.png": "", name: content})
    assert captions(tmp_path) == [("a cat",)]


def test_of_several_caption_files_the_first_form_is_read_and_the_others_are_told(tmp_path: Path) -> None:
    write(tmp_path / "photos", **{"a.png": "", "a.caption": "second", "a.txt": "first", "a.png.txt": "third"})
    table = read_samples(DataParams(data_root_path=str(tmp_path), pairs_file_path="photos"), ())
    assert table.rows[0].captions == ("first",)
    assert table.unused == ["caption files of pictures that have another: 2, the first is a.caption"]


@pytest.mark.parametrize(
    ("lines", "expected", "rows"),
    [
        ("join", [("a cat a kitten", ), ("a dog",)], 1),
        ("first", [("a cat",), ("a dog",)], 1),
        ("any", [("a cat", "a kitten"), ("a dog",)], 1),
    ],
)  # fmt: skip
def test_a_field_says_what_several_lines_are(
    tmp_path: Path, lines: str, expected: list[tuple[str, ...]], rows: int
) -> None:
    write(tmp_path / "photos", **{"a.png": "", "a.txt": "\na  cat \n\n a kitten\n", "b.png": "", "b.txt": "a dog\n\n"})
    assert captions(tmp_path, caption_lines=lines) == expected
    params = DataParams(data_root_path=str(tmp_path), pairs_file_path="photos", caption_lines=lines)
    table = read_samples(params, ())
    assert table.several_lines == rows
    said = account(params, table, set())[1]
    assert said.startswith("photos: 1 caption of several lines, ")
    assert said.endswith(f" (data.params.caption_lines: {lines})")


def test_a_list_of_captions_holds_alternatives(tmp_path: Path) -> None:
    write(tmp_path / "photos", **{"a.png": "", "a.json": '{"caption": ["a cat", "a kitten"]}'})
    assert captions(tmp_path) == [("a cat", "a kitten")]
    assert captions(tmp_path, caption_lines="first") == [("a cat",)]


@pytest.mark.parametrize("content", ["{", '{"tags": "cat"}', "[1]", '{"caption": 3}', "[" * 100_000])
def test_a_json_file_without_a_caption_is_no_caption(tmp_path: Path, content: str) -> None:
    write(tmp_path / "photos", **{"a.png": "", "a.json": content})
    if content in {"{", "[" * 100_000}:
        assert "a.json: is not JSON" in refused(tmp_path)
    else:
        table = read_samples(DataParams(data_root_path=str(tmp_path), pairs_file_path="photos"), ())
        assert table.unused == [".json files next to pictures without a `caption`: 1, the first is a.json"]


# --- folders that say how often they are read ---


def test_sub_folders_say_how_often_an_epoch_reads_them(tmp_path: Path) -> None:
    write(
        tmp_path / "photos",
        **{"3_red cat/a.png": "", "3_red cat/b.png": "", "3_red cat/b.caption": "b", "0_off/c.png": ""},
    )
    params = DataParams(data_root_path=str(tmp_path), pairs_file_path="photos")
    table = read_samples(params, ())
    assert [(row.image.name, row.caption) for row in table.rows] == [("a.png", "red cat")] * 3 + [("b.png", "b")] * 3
    assert [row.line for row in table.rows] == [1, 1, 1, 2, 2, 2]
    assert account(params, table, set()) == [
        "photos: 6 samples of 2 pictures, 2 different captions",
        "photos: not used: pictures in folders of 0 repeats: 1, the first is 0_off/c.png",
        "photos: 3_red cat: an epoch reads its 2 pictures 3 times, 1 of them with the caption 'red cat' (data.params.folder_repeats)",
    ]


def test_a_year_is_no_number_of_repeats_and_a_field_turns_them_off(tmp_path: Path) -> None:
    write(tmp_path / "photos", **{"2024_summer/a.png": "", "20240701_b/b.png": ""})
    table = read_samples(DataParams(data_root_path=str(tmp_path), pairs_file_path="photos"), ())
    assert [row.captions for row in table.rows] == [("",), ("",)]
    assert "2024_summer: an epoch reads its pictures once; 2024 is more than 500 repeats" in table.notes
    write(tmp_path / "photos", **{"2_front/c.png": ""})
    assert captions(tmp_path, folder_repeats=False) == [("",)] * 3


# --- what is not used is told ---


def test_whatever_looks_like_a_sample_and_is_none_is_counted_and_named(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "photos",
        **dict.fromkeys(
            [
                "a.png",
                "a-masklabel.png",
                "a.npz",
                "a.tags",
                "lone-masklabel.png",
                "b.heic",
                "c.HEIC",
                "d.jxl",
                "film.mp4",
                "orphan.txt",
                "readme.txt",
                "metadata.parquet",
                "shard.tar",
                "rows.csv",
                "notes.md",
                ".hidden.heic",
            ],
            "",
        ),
        **{"a.txt": "a cat", "lone-masklabel.txt": "a mask"},
    )
    (tmp_path / "elsewhere").mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    params = DataParams(data_root_path=str(tmp_path), pairs_file_path="photos")
    table = read_samples(params, ())
    assert [row.image.name for row in table.rows] == ["a.png", "lone-masklabel.png"]
    assert sorted(table.unused) == [
        ".heic files, which are not read here (save them as PNG or JPEG): 2, the first is b.heic",
        ".jxl files, which are not read here (save them as PNG or JPEG): 1, the first is d.jxl",
        ".mp4 files, which are not read here (save them as PNG or JPEG): 1, the first is film.mp4",
        ".parquet files (a Parquet table), which are not read yet: 1, the first is metadata.parquet",
        ".tar files (a webdataset archive), which are not read yet: 1, the first is shard.tar",
        "caption files without a picture: 1, the first is orphan.txt",
        "files next to pictures of a kind that is not read: 1, the first is a.tags",
        "links to folders, which are not entered: 1, the first is link",
        "masks of pictures: 1, the first is a-masklabel.png",
        "tables, which are read where data.params.pairs_file_path names them: 1, the first is rows.csv",
    ]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("metadata.jsonl", "there is metadata.jsonl; name that in data.params.pairs_file_path, or remove it"),
        ("sub/data.json", "there is sub/data.json; name that in"),
        ("a.tags", "there is a.tags; captions are read from .txt, .caption, .json files next to their pictures"),
        ("captions/a.txt", "there is captions/a.txt; captions are read from"),
    ],
)
def test_captions_of_another_layout_are_not_taken_for_none(tmp_path: Path, other: str, said: str) -> None:
    write(tmp_path / "photos", **{"a.png": "", other: ""})
    assert said in refused(tmp_path)


def test_a_folder_of_what_is_not_read_says_what_it_holds(tmp_path: Path) -> None:
    write(tmp_path / "photos", **{"0.tar": "", "1.tar": "", "b.heic": ""})
    said = refused(tmp_path)
    assert "holds no picture (" in said
    assert ".tar files (a webdataset archive), which are not read yet: 2, the first is 0.tar" in said
    assert ".heic files, which are not read here (save them as PNG or JPEG): 1, the first is b.heic" in said


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
    pairs = [(picture, f"number {picture.stem}") for picture in picture_folder.pictures(photos)]
    (data / "pairs.txt").write_text(picture_folder.text_of(pairs, data), encoding="utf-8")
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
