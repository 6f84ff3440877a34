"""YAML from users is read completely and literally, or refused with the line to mend."""

from pathlib import Path

import pytest
import yaml

from adapter_api.document import MAX_BYTES, InvalidDocument, parse, read


def refusal(text: str | bytes) -> str:
    with pytest.raises(InvalidDocument) as refused:
        parse(text, "job.yaml")
    return str(refused.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("false", False),
        ("True", True),
        ("~", None),
        ("", None),
        ("1e-4", 1e-4),
        ("1.5e+3", 1500.0),
        (".5", 0.5),
        ("007", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2026-01-31", "2026-01-31"),
        ("'1'", "1"),
        ('"null"', "null"),
        ("１２", "１２"),
        ("!!int '3'", "3"),
        ("!!binary aGk=", "aGk="),
    ],
)
def test_scalars_follow_yaml_1_2(written: str, value: object) -> None:
    read_back = parse(f"a: {written}", "job.yaml").data["a"]
    assert read_back == value
    assert type(read_back) is type(value)


def test_an_abbreviated_section_is_an_empty_one() -> None:
    assert parse("a: {...}\nb: {'...': 1}", "job.yaml").data == {"a": {}, "b": {"...": 1}}


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert parse(b"\xef\xbb\xbfa: 1", "job.yaml").data == {"a": 1}


def test_an_alias_repeats_its_value() -> None:
    assert parse("a: &x {b: 1}\nc: *x", "job.yaml").data == {"a": {"b": 1}, "c": {"b": 1}}


def test_every_value_knows_its_line() -> None:
    document = parse("a:\n  b:\n    - 1\n    - c: 2\n", "job.yaml")
    assert document.line_of(("a", "b", 1, "c")) == 4
    assert document.line_of(("a", "b", 1, "absent")) == 4
    assert document.line_of(("a", "b", 7)) == 2
    assert document.line_of(("absent",)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "job.yaml:1: is empty", id="nothing"),
        pytest.param("# only this\n", "job.yaml:1: is empty", id="only a comment"),
        pytest.param("---\na: 1\n---\nb: 2\n", "holds 2 documents", id="several documents"),
        pytest.param("- 1", "job.yaml:1: a mapping of fields is expected", id="a list"),
        pytest.param("just text", "a mapping of fields is expected", id="text"),
        pytest.param("a: [1,\nb: 2", "job.yaml:2: is not valid YAML", id="an unfinished list"),
        pytest.param("\na: *nowhere", "job.yaml:2: is not valid YAML: found undefined alias", id="an undefined alias"),
        pytest.param("a: 1\na: \x00", "job.yaml:2: contains U+0000", id="NUL"),
        pytest.param("a: 1\nb: \x07", "job.yaml:2: contains U+0007", id="a control character"),
        pytest.param(b"a: 1\nb: \xff", "job.yaml:2: is not UTF-8 text (byte 8)", id="Latin-1"),
        pytest.param("a: 1".encode("utf-16"), "is not UTF-8 text", id="UTF-16"),
        pytest.param("a: &x [*x]", "job.yaml:1: a[0]: an alias refers to itself", id="a list in itself"),
        pytest.param("a:\n  b: &x\n    c: *x", "a.b.c: an alias refers to itself", id="a mapping in itself"),
        pytest.param("[" * 5000, "nested deeper than 32 levels", id="brackets beyond Python's stack"),
        pytest.param("a: " + "{a: " * 40 + "1" + "}" * 40, "is nested deeper than 32 levels", id="40 mappings"),
        pytest.param("a: 1 # x\u2028b: 2", "job.yaml:1: contains U+2028", id="a line break that editors hide"),
        pytest.param("a: 1 # x\x85b: 2", "contains U+0085", id="NEL"),
        pytest.param("a: 1\nb: 2 # \u202e", "job.yaml:2: contains U+202E", id="an override in a comment"),
    ],
)
def test_what_is_no_document_is_refused_with_its_line(text: str | bytes, message: str) -> None:
    assert message in refusal(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: 1\na: 2", "job.yaml:2: a: is given twice", id="a key given twice"),
        pytest.param("a: &x {b: 1}\nc:\n  <<: *x", "job.yaml:3: c: merge keys", id="a merge key"),
        pytest.param("? [1, 2]\n: 3", "keys must be plain text", id="a list as key"),
        pytest.param(
            "a: !!python/object/apply:os.system [ls]", "job.yaml:1: a: tag 'tag:yaml.org,2002:python", id="tag"
        ),
        pytest.param("a: !shell ls", "tag '!shell' is not accepted", id="a local tag"),
        pytest.param("a: .nan", "a: .nan is not a finite number", id="NaN"),
        pytest.param("a: -.inf", "-.inf is not a finite number", id="minus infinity"),
        pytest.param("a: 1e999999", "1e999999 is not a finite number", id="a huge exponent"),
        pytest.param("a: 9223372036854775808", "does not fit a 64-bit integer", id="2**63"),
        pytest.param(f"a: {'9' * 5000}", "does not fit a 64-bit integer", id="5000 digits"),
        pytest.param("a: 0x" + "f" * 5000, "does not fit a 64-bit integer", id="5000 hexadecimal digits"),
        pytest.param('a: "x\\u202ey"', "job.yaml:1: a: the text contains U+202E", id="a right-to-left override"),
        pytest.param('a: "\\u2066"', "contains U+2066", id="an isolate"),
        pytest.param('a: "\\ud800"', "contains U+D800", id="half a character"),
        pytest.param("ima\u200bge: 1", "contains U+200B", id="zero-width space in a key"),
        pytest.param("im\u0430ge: 1", "key 'im\\u0430ge' contains a letter outside ASCII", id="Cyrillic a in a key"),
        pytest.param('"a\\nb": 1', "contains U+000A", id="a line break in a key"),
    ],
)
def test_values_that_mislead_are_refused_where_they_stand(text: str, message: str) -> None:
    faults = parse(text, "job.yaml").faults
    assert message in "\n".join(map(str, faults))
    assert all(fault.line for fault in faults)


def test_text_in_any_script_is_welcome_as_a_value() -> None:
    assert parse("a: Ziffer «drei», 数字三, рисунок", "job.yaml").data["a"] == "Ziffer «drei», 数字三, рисунок"


def test_an_alias_bomb_is_refused_before_it_expands() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert "holds more than 20000 values once its aliases are expanded" in refusal(bomb)


def test_documents_beyond_256_kib_are_refused_unread(tmp_path: Path) -> None:
    assert "is 262145 bytes; at most 262144 are accepted" in refusal("#" * (MAX_BYTES + 1))
    large = tmp_path / "large.yaml"
    large.write_bytes(b"a: 1\n" + b"#" * 1_000_000)
    with pytest.raises(InvalidDocument, match="is larger than 262144 bytes"):
        read(large)


def test_a_document_of_exactly_256_kib_is_read() -> None:
    assert parse("a: 1\n".ljust(MAX_BYTES, "#").replace("1\n#", "1\n #", 1)[:MAX_BYTES], "job.yaml").data == {"a": 1}


@pytest.mark.parametrize("name", ["absent.yaml", ".", "with\0null"])
def test_a_file_that_cannot_be_read_is_one_fault(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidDocument, match="cannot be read"):
        read(f"{tmp_path}/{name}")


def test_json_is_yaml() -> None:
    assert parse('{"a": "\\ud83d\\ude00"}', "job.json").data == {"a": "\U0001f600"}
    assert parse('{"a": [1, 2.5, true, null, "x\\ty"]}', "job.json").data == {"a": [1, 2.5, True, None, "x\ty"]}


def test_the_reader_differs_from_yaml_1_1_where_that_surprises() -> None:
    """Guards the premise: were PyYAML to change, this module could shrink."""
    assert yaml.safe_load("[no, 1e-4, 12:30]") == [False, "1e-4", 750]


SEVERAL = "kind: Secret\nmetadata: {name: keys}\n---\nkind: Ours\na: [1, x]\n---\n"


def test_of_several_objects_the_one_of_a_kind_is_read_with_its_lines_and_the_others_are_named() -> None:
    document = parse(SEVERAL, "job.yaml", of_kind="Ours")
    assert document.data == {"kind": "Ours", "a": [1, "x"]}
    assert document.line_of(("a",)) == 5
    assert document.others == ("Secret keys (line 1)",)


def test_one_document_is_read_whatever_its_kind() -> None:
    assert parse("kind: Theirs\n---\n", "job.yaml", of_kind="Ours").data == {"kind": "Theirs"}
    assert parse("a: 1\n", "job.yaml", of_kind="Ours").others == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "kind: Ours\n---\nkind: Ours\n",
            "job.yaml:1: holds 2 documents, of which 2 are of kind Ours (lines 1, 3); one is expected",
        ),
        ("kind: A\n---\nkind: B\n", "of which 0 are of kind Ours; one is expected"),
        ("- 1\n---\n? [a]\n: b\n---\nkind: [Ours]\n", "holds 3 documents, of which 0 are of kind Ours"),
    ],
)
def test_more_or_fewer_than_one_of_the_kind_are_refused(text: str, told: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        parse(text, "job.yaml", of_kind="Ours")
    assert told in str(refused.value)


def test_names_of_other_objects_do_not_act_on_a_terminal() -> None:
    named = parse('kind: "\\e[31m"\n---\nkind: Ours\n', "job.yaml", of_kind="Ours").others
    assert named == ("\\x1b[31m (line 1)",)
