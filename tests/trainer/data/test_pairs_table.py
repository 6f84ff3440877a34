"""Every fault of the pairs file is told with file and line, in each of its formats."""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter_api.data import Column, DataParams
from adapter_trainer.data.pairs_table import MAX_FAULTS, Row, named_for_evaluation, read_samples, read_table
from adapter_trainer.errors import InvalidData

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
    assert len(faults(root, "gone.png\tcat\t1\n\na.png\tcat\t99\n", LABEL)) == 3
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


# --- tables of others ---


def test_a_list_of_objects_is_read_as_ip_adapters_are(root: Path) -> None:
    text = (
        '[\n  {"image_file": "a.png", "text": "a cat"},\n  {"image_file": "inside/b.png", "text": "dog", "id": 7}\n]\n'
    )
    (root / "data.json").write_text(text, encoding="utf-8")
    table = read_samples(DataParams(data_root_path=str(root), pairs_file_path="data.json"), ())
    assert [(row.line, row.image, row.caption) for row in table.rows] == [
        (2, root / "a.png", "a cat"),
        (3, root / "inside/b.png", "dog"),
    ]
    assert table.unused == ["id: a column that nothing reads"]


def test_captions_by_picture_are_read_as_kohyas_are(root: Path) -> None:
    (root / "inside" / "c.d.webp").touch()
    text = json.dumps(
        {
            "a": {"caption": "a cat", "tags": "grey, small", "train_resolution": [512, 512]},
            "inside/b.png": {"tags": "dog"},
            "inside/c.d": {"caption": "a cow"},
            "inside\\b": {},
        },
        indent=1,
    )
    rows = read(root, text, name="meta_cap.json")
    assert [row.caption for row in rows] == ["a cat, grey, small", "dog", "a cow", ""]
    assert [row.image.name for row in rows] == ["a.png", "b.png", "c.d.webp", "b.png"]
    rows = read(root, json.dumps({"b": {"caption": "a dog"}}), name="inside/meta_cap.json")
    assert rows[0].image == root / "inside/b.png"  # beside the file, as kohya's image_dir


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("[", "1: is not JSON: ", id="cut short"),
        pytest.param("7", "1: is neither a list of objects nor captions by picture", id="a number"),
        pytest.param('{"images": [], "annotations": []}', "1: is neither a list of objects with image", id="COCO's"),
        pytest.param('[{"image": "a.png", "caption": ""},\n7]', "2: is not a JSON object", id="not an object"),
        pytest.param('[\n{"image": "a.png"}]', "2: has no caption", id="no caption"),
        pytest.param('{\n"a": {"caption": "x"},\n"a": {"caption": "y"}}', "3: has a several times", id="a key twice"),
        pytest.param('[\n\n{"image": "a.png", "image": "b", "caption": ""}]', "3: has image several times", id="a name twice"),
        pytest.param('{"gone": {"caption": "x"}}', "1: image: gone does not exist in ", id="no such picture"),
        pytest.param("[" * 100_000, "1: is not JSON: ", id="an abyss"),
    ],
)  # fmt: skip
def test_a_fault_of_json_names_its_line(root: Path, text: str, fault: str) -> None:
    assert faults(root, text, name="a.json")[0].startswith(fault)


def test_one_object_a_line_is_read_under_the_ending_json_too(root: Path) -> None:
    line = '{"image": "a.png", "caption": "a cat"}'
    assert len(read(root, f"{line}\n{line}\n", name="a.json")) == 2
    assert len(read(root, line, name="a.json")) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,text\nb.png,a cat\n"),
        ("metadata.jsonl", '{"file_name": "b.png", "text": "a cat"}\n'),
    ],
)
def test_names_in_a_metadata_file_begin_at_its_own_folder(root: Path, name: str, text: str) -> None:
    assert read(root, text, name=f"inside/{name}")[0].image == root / "inside/b.png"
    assert faults(root, text, name=f"inside/other-{name}")[0].endswith(f"does not exist in {root}")


@pytest.mark.parametrize(
    ("text", "name", "fault"),
    [
        (
            "image,caption,caption\na.png,cat,dog\n",
            "a.csv",
            "1: the header has several columns caption; keep one of each",
        ),
        ("Image,image ,caption\na.png,a.png,cat\n", "a.csv", None),
        (
            "image,image,caption\na.png,a.png,cat\n",
            "a.csv",
            "1: the header has several columns image; keep one of each",
        ),
        ('{"image": "a.png", "caption": "cat", "caption": "dog"}', "a.jsonl", "1: has caption several times; keep one"),
    ],
)
def test_several_columns_of_one_name_are_refused(root: Path, text: str, name: str, fault: str | None) -> None:
    if fault is None:
        assert read(root, text, name=name)[0].caption == "cat"
    else:
        assert faults(root, text, name=name) == [fault]


AS_PROGRAMS_LEAVE_THEM = {
    "semicolons (Excel, LibreOffice in most of Europe)": "image;caption;digit\na.png;a cat, grey;3\n",
    "Excel's own word": "sep=;\r\nimage;caption;digit\r\na.png;a cat, grey;3\r\n",
    "tabs": "image\tcaption\tdigit\na.png\ta cat, grey\t3\n",
    "bars": "image|caption|digit\na.png|a cat, grey|3\n",
    "old line ends (Excel for Macintosh)": 'image,caption,digit\ra.png,"a cat, grey",3\r',
    "empty rows and columns at the end": "image;caption;digit;;\na.png;a cat, grey;3;;\n;;;;\n;;;;\n\n",
    "case and blanks in the header": 'Image , Caption,DIGIT\na.png,"a cat, grey",3\n',
    "quotes around everything": '"image","caption","digit"\n"a.png","a cat, grey","3"\n',
    "slashes of Windows": 'image,caption,digit\ninside\\b.png,"a cat, grey",3\n',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", AS_PROGRAMS_LEAVE_THEM.values(), ids=AS_PROGRAMS_LEAVE_THEM)
def test_csv_is_read_as_spreadsheets_leave_it(root: Path, text: str, encoding: str) -> None:
    (root / "a.csv").write_bytes(text.encode(encoding))
    (row,) = read_table(DataParams(data_root_path=str(root), pairs_file_path="a.csv"), (LABEL,))
    assert (row.caption, row.values) == ("a cat, grey", {"digit": 3})


def test_a_line_behind_excels_own_word_has_its_own_number(root: Path) -> None:
    assert faults(root, "sep=;\nimage;caption\na.png;cat\ngone.png;dog\n", name="a.csv")[0].startswith(
        "4: image: gone.png"
    )


@pytest.mark.parametrize("name", ["a.tsv", "a.txt"])
def test_tabs_below_a_header_are_a_table_with_a_header(root: Path, name: str) -> None:
    (row,) = read(root, "caption\timage\na cat\ta.png\n", name=name)
    assert (row.line, row.caption) == (2, "a cat")
    assert read(root, "a.png\ta cat\n", name=name)[0].line == 1


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_empty_lines_at_the_end_are_none(root: Path, name: str) -> None:
    text = {
        "a.txt": "a.png\tcat\n",
        "a.csv": "image,caption\na.png,cat\n",
        "a.jsonl": '{"image": "a.png", "caption": "cat"}\n',
    }
    assert len(read(root, text[name] + "\n \n\n", name=name)) == 1


def test_columns_that_nothing_reads_are_told(root: Path) -> None:
    (root / "a.csv").write_text("image,caption,text,url\na.png,cat,dog,x\n", encoding="utf-8")
    table = read_samples(DataParams(data_root_path=str(root), pairs_file_path="a.csv"), ())
    assert table.unused == ["text, url: columns that nothing reads"]


def test_letters_may_be_composed_or_not(root: Path) -> None:
    (root / unicodedata.normalize("NFD", "café.png")).touch()
    assert read(root, f"{unicodedata.normalize('NFC', 'café.png')}\tcat\n")[0].caption == "cat"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("shard-000.tar", "a webdataset archive, which is not read yet; unpack it with `tar xf`, and name the folder"),
        ("train-00000.parquet", "a Parquet table, which is not read yet; write its rows as JSONL"),
        ("captions.xlsx", "a spreadsheet, which is not read yet; save it as CSV with UTF-8"),
    ],
)
def test_what_holds_samples_in_another_form_is_named_as_what_it_is(root: Path, name: str, what: str) -> None:
    with pytest.raises(InvalidData, match=rf"^data\.params\.pairs_file_path: .*{re.escape(name)} is {re.escape(what)}"):
        read(root, "x", name=name)


@given(st.text(max_size=200), st.sampled_from(["a.txt", "a.csv", "a.jsonl", "a.json"]))
def test_any_text_gives_rows_or_named_faults(tmp_path_factory: pytest.TempPathFactory, text: str, name: str) -> None:
    root: Any = tmp_path_factory.getbasetemp() / "any"
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(InvalidData) as caught:
        read_table(DataParams(data_root_path=str(root), pairs_file_path=name), (LABEL,))
    assert str(caught.value).startswith(str(root / name))


@pytest.mark.parametrize(
    ("cell", "width", "numbers"),
    [
        ("0,5 -1,25", 2, (0.5, -1.25)),
        ("0,5", 1, (0.5,)),
        ("3 0,5", 2, (3.0, 0.5)),
        ("0,5", 2, (0.0, 5.0)),
        ("0,5", None, (0.0, 5.0)),
        ("1, 2", 2, (1.0, 2.0)),
        ("1,5e2 0", 2, (150.0, 0.0)),
    ],
)
@pytest.mark.parametrize("form", ["image;caption;shape\na.png;cat;{}\n", "image\tcaption\tshape\na.png\tcat\t{}\n"])
def test_decimal_commas_are_known_by_the_width(
    root: Path, form: str, cell: str, width: int | None, numbers: tuple[float, ...]
) -> None:
    name = "train.csv" if ";" in form else "train.txt"
    (row,) = read(root, form.format(cell), Column(name="shape", kind="vector", width=width), name=name)
    assert row.values["shape"] == numbers


def test_decimal_commas_without_a_width_are_refused_where_they_may_be_meant(root: Path) -> None:
    (found,) = faults(root, "image;caption;shape\na.png;cat;0,5 1,5\n", VECTOR, name="train.csv")
    assert found.startswith(
        "2: shape: '0,5 1,5' is 4 numbers, or 2 with decimal commas; write points, or say the width"
    )


def test_every_fault_of_held_out_rows_names_their_field(root: Path) -> None:
    for text in ("no.png\tcat\nno.png\tcat\n", "", None):
        (root / "train.txt").unlink(missing_ok=True)
        with pytest.raises(InvalidData) as caught, named_for_evaluation():
            read(root, text) if text is not None else read_table(
                DataParams(data_root_path=str(root), pairs_file_path="train.txt"), ()
            )
        for line in str(caught.value).splitlines():
            assert "evaluation.pairs_file_path: " in line
            assert "data.params.pairs_file_path" not in line
