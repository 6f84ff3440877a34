"""Every fault of the pairs file is told with file and line, in each of its formats."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter_api.data import Column, DataParams
from adapter_trainer.errors import InvalidData
from adapter_trainer.table import MAX_FAULTS, Row, read_table

LABEL = Column(name="digit", kind="label", width=10)
VECTOR = Column(name="shape", kind="vector")
REFERENCE = Column(name="style", kind="reference")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one (empty) picture: nothing is decoded here."""
    folder = tmp_path / "root"
    (folder / "inside").mkdir(parents=True)
    (folder / "a.png").touch()
    (folder / "inside" / "b.png").touch()
    (tmp_path / "secret.png").touch()
    return folder


def read(root: Path, text: str, *columns: Column, name: str = "train.txt") -> list[Row]:
    (root / name).write_bytes(text.encode())
    return read_table(DataParams(data_root_path=str(root), pairs_file_path=name), columns)


def faults(root: Path, text: str, *columns: Column, name: str = "train.txt") -> list[str]:
    with pytest.raises(InvalidData) as caught:
        read(root, text, *columns, name=name)
    return [line.removeprefix(f"{root / name}:") for line in str(caught.value).splitlines()]


def test_a_row_is_image_caption_and_columns(root: Path) -> None:
    (row,) = read(root, "inside/b.png\ta cat\t3\t1 -2.5,3e-1\ta.png\n", LABEL, VECTOR, REFERENCE)
    assert row == Row(1, root / "inside/b.png", "a cat", {"digit": 3, "shape": (1, -2.5, 0.3), "style": root / "a.png"})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param("a.png\ta cat\t3\r\na.png\tdog\t4\r\n", "a.txt", id="pairs with CRLF"),
        pytest.param("\ufeffa.png\ta cat\t3\na.png\tdog\t4", "a.txt", id="pairs with BOM, without last line end"),
        pytest.param("caption,digit,image\r\na cat,3,a.png\r\ndog,4,a.png\r\n", "a.csv", id="CSV with CRLF"),
        pytest.param("\ufeffimage,caption,digit\na.png,a cat,3\na.png,dog,4\n", "a.csv", id="CSV with BOM"),
        pytest.param(
            '{"image": "a.png", "caption": "a cat", "digit": 3}\r\n{"digit": "4", "image": "a.png", "caption": "dog"}',
            "a.jsonl",
            id="JSONL with CRLF",
        ),
        pytest.param("file_name,text,digit\na.png,a cat,3\na.png,dog,4\n", "metadata.csv", id="Hugging Face's CSV"),
        pytest.param(
            '{"file_name": "a.png", "text": "a cat", "digit": 3}\n{"file_name": "a.png", "text": "dog", "digit": 4}\n',
            "metadata.jsonl",
            id="Hugging Face's JSONL",
        ),
    ],
)
def test_formats_line_ends_and_bom_do_not_matter(root: Path, text: str, name: str) -> None:
    rows = read(root, text, LABEL, name=name)
    assert [(row.caption, row.values) for row in rows] == [("a cat", {"digit": 3}), ("dog", {"digit": 4})]


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\x0b", "\x0c", "\x1d"])
def test_a_separator_inside_a_caption_ends_no_line(root: Path, separator: str) -> None:
    caption = f"one{separator}two"
    assert read(root, f"a.png\t{caption}\nabsent.png\t\n".replace("absent", "a"))[0].caption == caption
    (fault,) = faults(root, f"a.png\t{caption}\nabsent.png\t\n")
    assert fault.startswith("2: image: absent.png does not exist")
    line = json.dumps({"image": "a.png", "caption": caption}, ensure_ascii=False)
    assert read(root, f"{line}\n{line}\n", name="a.jsonl")[1].line == 2


def test_a_quoted_csv_field_may_hold_commas_quotes_and_line_ends(root: Path) -> None:
    rows = read(root, 'image,caption\na.png,"a ""big"" cat,\nsitting"\na.png,dog\n', name="a.csv")
    assert [row.caption for row in rows] == ['a "big" cat,\nsitting', "dog"]


PAIRS = [
    pytest.param("gone.png\tcat\t1", "image: gone.png does not exist in ", id="a missing image"),
    pytest.param("inside\tcat\t1", "image: inside does not exist in ", id="a folder for an image"),
    pytest.param("\tcat\t1", "image: '' is not a path", id="no image"),
    pytest.param("/etc/passwd\tcat\t1", "image: /etc/passwd leaves data_root_path", id="an absolute path"),
    pytest.param("../secret.png\tcat\t1", "image: ../secret.png leaves data_root_path", id="a path upwards"),
    pytest.param("inside/../../secret.png\tc\t1", "image: inside/../../secret.png leaves", id="a hidden path upwards"),
    pytest.param("link.png\tcat\t1", "image: link.png leaves data_root_path", id="a link out of the root"),
    pytest.param("loop.png\tcat\t1", "image: loop.png ", id="a loop of links"),
    pytest.param(f"{'a' * 300}.png\tcat\t1", "image: aaa", id="a name too long for a file"),
    pytest.param("a\0.png\tcat\t1", "image: 'a\\x00.png' is not a path", id="a NUL in a path"),
    pytest.param("", "is empty; remove it", id="an empty line"),
    pytest.param("a.png\tcat", "has 2 tab-separated fields, not 3 (image, caption, digit)", id="a field too few"),
    pytest.param("a.png\tcat\t1\t2", "has 4 tab-separated fields, not 3", id="a field too many"),
    pytest.param("a.png cat 1", "has 1 tab-separated fields, not 3", id="blanks for tabs"),
    pytest.param("a.png\tcat\t10", "digit: label 10 is outside 0..9", id="a label out of range"),
    pytest.param("a.png\tcat\t-1", "digit: '-1' is not a label index", id="a negative label"),
    pytest.param("a.png\tcat\tone", "digit: 'one' is not a label index", id="a word for a label"),
    pytest.param("a.png\tcat\t\u0663", "digit: '\u0663' is not a label index", id="a digit of another script"),
    pytest.param(f"a.png\tcat\t{'9' * 5000}", "digit: '999", id="an endless label"),
]


@pytest.mark.parametrize(("line", "fault"), PAIRS)
def test_a_fault_of_a_pair_names_its_line(root: Path, line: str, fault: str) -> None:
    (root / "link.png").symlink_to(root.parent / "secret.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (found,) = faults(root, f"a.png\tcat\t1\n{line}\na.png\tdog\t2\n", LABEL)
    assert found.startswith(f"2: {fault}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1 2 x", "'1 2 x' is not a list of numbers"),
        ("", "'' is not a list of finite"),
        ("1 nan 2", "is not a list of finite"),
        ("1 inf 2", "is not a list of finite"),
        ("1 1e39 2", "is not a list of finite 32-bit numbers"),
        ("1 2 3 4", "has 4 numbers, not 3"),
    ],
)
def test_a_fault_of_a_vector_names_its_line(root: Path, given: str, message: str) -> None:
    (found,) = faults(root, f"a.png\tcat\t{given}\n", Column(name="shape", kind="vector", width=3))
    assert found.startswith("1: shape: ")
    assert message in found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("image,caption\na.png,cat\n", "1: the header has no column digit", id="a missing column"),
        pytest.param("image,caption,digit\na.png,cat\n", "2: has 2 fields, not the header's 3", id="a field too few"),
        pytest.param("image,caption,digit\na.png,cat,1,2\n", "2: has 4 fields, not the header's 3", id="one too many"),
        pytest.param("image,caption,digit\na.png,cat,1\n\na.png,cat,1\n", "3: is empty; remove it", id="an empty line"),
        pytest.param('image,caption,digit\na.png,"cat,1\n', "2: is not CSV: unexpected end", id="an open quote"),
        pytest.param("image,caption,digit\ngone.png,cat,1\n", "2: image: gone.png does not exist", id="no such image"),
    ],
)
def test_a_fault_of_csv_names_its_line(root: Path, text: str, fault: str) -> None:
    (found,) = faults(root, text, LABEL, name="a.csv")
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        pytest.param("{", "is not JSON: ", id="not JSON"),
        pytest.param("[1]", "is not a JSON object", id="not an object"),
        pytest.param("", "is empty; remove it", id="an empty line"),
        pytest.param('{"image": "a.png", "caption": "cat"}', "has no digit", id="a missing column"),
        pytest.param('{"image": "a.png", "caption": 3, "digit": 1}', "caption: 3 is not text", id="no caption"),
        pytest.param('{"image": 7, "caption": "", "digit": 1}', "image: 7 is not a path", id="no path"),
        pytest.param('{"image": "a.png", "caption": "", "digit": true}', "digit: True is not a label", id="a boolean"),
        pytest.param('{"image": "a.png", "caption": "", "digit": 1.5}', "digit: 1.5 is not a label", id="a fraction"),
        pytest.param("[" * 100_000, "is not JSON: ", id="an abyss"),
        pytest.param(f'{{"image": {"9" * 5000}}}', "is not JSON: ", id="an endless number"),
    ],
)
def test_a_fault_of_jsonl_names_its_line(root: Path, line: str, fault: str) -> None:
    good = '{"image": "a.png", "caption": "cat", "digit": 1}'
    (found,) = faults(root, f"{good}\n{line}\n{good}\n", LABEL, name="a.jsonl")
    assert found.startswith(f"2: {fault}")


@pytest.mark.parametrize("given", ["[1, NaN]", "[1, Infinity]", f"[1, 1{'0' * 400}]", "[[1]]", "{}", "[]", "null"])
def test_a_fault_of_a_vector_in_jsonl_names_its_line(root: Path, given: str) -> None:
    (found,) = faults(root, f'{{"image": "a.png", "caption": "", "shape": {given}}}', VECTOR, name="a.jsonl")
    assert found.startswith("1: shape: ")


def test_all_faults_are_told_at_once_up_to_a_bound(root: Path) -> None:
    assert len(faults(root, "gone.png\tcat\t1\na.png\tcat\t99\n\n", LABEL)) == 3
    many = faults(root, "gone.png\tcat\t1\n" * (MAX_FAULTS + 5), LABEL)
    assert len(many) == MAX_FAULTS + 1
    assert many[-1] == "… and 5 faults more"


def test_text_that_is_not_utf8_names_its_line(root: Path) -> None:
    (root / "train.txt").write_bytes(b"a.png\tcat\na.png\tcaf\xe9\n")
    with pytest.raises(InvalidData, match=r"train\.txt:2: is not UTF-8 text"):
        read_table(DataParams(data_root_path=str(root)), ())


@pytest.mark.parametrize("name", ["train.txt", "a.csv", "a.jsonl"])
def test_a_file_without_samples_is_refused(root: Path, name: str) -> None:
    with pytest.raises(InvalidData, match=r"holds no sample|the header has no column"):
        read(root, "", name=name)


def test_a_missing_file_or_root_names_its_field(root: Path) -> None:
    with pytest.raises(InvalidData, match=r"data\.params\.pairs_file_path: .*gone\.txt cannot be read: No such file"):
        read_table(DataParams(data_root_path=str(root), pairs_file_path="gone.txt"), ())
    with pytest.raises(InvalidData, match=r"data\.params\.data_root_path: .* is not a folder"):
        read_table(DataParams(data_root_path=str(root / "gone")), ())


@pytest.mark.parametrize(
    ("params", "told"),
    [
        pytest.param({"data_root_path": "data/digits"}, "`make example-data` writes it", id="the examples'"),
        pytest.param({"data_root_path": "data/mine"}, "correct the path, which is absolute or from the working directory", id="a user's"),
        pytest.param({"pairs_file_path": "photos"}, "set data_root_path to the folder that photos is in: `.`", id="a folder that is here"),
        pytest.param({}, "set data_root_path to the folder that holds train.txt", id="nothing said"),
    ],
)  # fmt: skip
def test_data_that_are_not_there_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: dict[str, str], told: str
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidData) as caught:
        read_table(DataParams(**params), ())
    assert told in str(caught.value)


def test_a_link_inside_the_root_is_followed(root: Path) -> None:
    (root / "link.png").symlink_to(root / "a.png")
    assert read(root, "link.png\tcat\n")[0].image == root / "link.png"


@given(st.text(max_size=200), st.sampled_from(["a.txt", "a.csv", "a.jsonl"]))
def test_any_text_gives_rows_or_named_faults(tmp_path_factory: pytest.TempPathFactory, text: str, name: str) -> None:
    root: Any = tmp_path_factory.getbasetemp() / "any"
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(InvalidData) as caught:
        read_table(DataParams(data_root_path=str(root), pairs_file_path=name), (LABEL,))
    assert str(caught.value).startswith(str(root / name))
