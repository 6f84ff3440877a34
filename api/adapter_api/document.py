"""Reads YAML from users: bounded, without exploding aliases, and with a line number for every value; and writes it.

PyYAML's safe loader builds no objects, but it keeps the last of two equal keys and expands aliases without limit. This
module walks PyYAML's node graph itself.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from adapter_api.messages import INCONSISTENT, message_of
from adapter_api.scalars import (
    BIDIRECTIONAL,
    FLOAT,
    HIDDEN_LINE_BREAKS,
    INTEGER,
    hidden_character,
    joined_surrogates,
    key_problem,
    plain_value,
    text_problem,
    visible,
)

MAX_BYTES = 256 * 1024
"""Larger documents are refused: etcd holds 1.5 MiB an object, and no training configuration needs more."""
MAX_NODES = 20_000
"""Values in a document after aliases are expanded."""
MAX_DEPTH = 32
MAX_FAULTS = 20
"""Faults that are told of one document: whoever mends those finds out about the rest."""
_MAX_DETAILS = 50 * MAX_FAULTS
"""Of pydantic's errors, so many are looked at: the alternatives of a union give several for one fault."""

_TOO_MANY = f"holds more than {MAX_NODES} values once its aliases are expanded; shorten it"
_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels; flatten it"
_YAML_TAG = "tag:yaml.org,2002:"
_SIMPLE_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a document: where, what, and how to mend it."""

    source: str
    """File name, or a name for a document that has none."""
    location: Location
    message: str
    line: int | None = None
    """Counted from 1."""

    @property
    def path(self) -> str:
        """The field as a user would write it: spec.training.data.columns[2].name."""
        return "".join(_step(part) for part in self.location).removeprefix(".")

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.line else self.source
        return f"{where}: {self.path}: {self.message}" if self.location else f"{where}: {self.message}"


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if _SIMPLE_KEY.fullmatch(part) else f"[{part[:64]!r}]"


class InvalidDocument(ValueError):  # noqa: N818 - reads as the fact it states
    """A document that its author has to change; carries every fault that was found."""

    def __init__(self, faults: list[Fault], more: int = 0) -> None:
        self.faults = faults
        self.more = more
        """Errors that are not told; several may be one fault."""
        rest = [f"and {more} more"] if more else []
        super().__init__("\n".join([*(str(fault) for fault in faults), *rest]))


@dataclass(frozen=True)
class Document:
    """Plain data read from YAML, with the line on which each value stands."""

    source: str
    data: Any
    lines: dict[Location, int] = field(default_factory=dict, repr=False)
    faults: list[Fault] = field(default_factory=list, repr=False)
    """Values that were refused while reading and stand as null in `data`; `validate` reports them with its own."""
    others: tuple[str, ...] = ()
    """Objects of other kinds in the same file, as kind and name."""

    def line_of(self, location: Location) -> int | None:
        """Line of the value at `location`, or of its nearest enclosing value that the document contains."""
        for length in range(len(location), -1, -1):
            if (line := self.lines.get(location[:length])) is not None:
                return line
        return None

    def fault(self, location: Location, message: str) -> Fault:
        """A fault at `location`, with its line looked up."""
        return Fault(self.source, location, message, self.line_of(location))


class _Loader(yaml.SafeLoader):
    """Stops at the first value too many, rather than building a graph that will be refused."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes = 0
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        self.depth += 1
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        # Keys are nodes here, too.
        if self.nodes > 2 * MAX_NODES:
            raise yaml.MarkedYAMLError(problem=_TOO_MANY, problem_mark=mark)
        if self.depth > MAX_DEPTH + 1:
            raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Reader:
    """Turns PyYAML's node graph into plain data; knows where it is, so that every refusal names a line."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[Location, int] = {}
        self.faults: list[Fault] = []
        self.nodes = 0
        self.open: set[int] = set()
        """Identities of the collections that are being read: one that is met again contains itself."""

    def fault(self, node: yaml.Node, location: Location, message: str) -> Fault:
        return Fault(self.source, location, message, node.start_mark.line + 1)

    def refuse(self, node: yaml.Node, location: Location, message: str) -> None:
        self.faults.append(self.fault(node, location, message))

    def value(self, node: yaml.Node, location: Location) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise InvalidDocument([self.fault(node, (), _TOO_MANY)])
        if len(location) > MAX_DEPTH:
            raise InvalidDocument([self.fault(node, location, _TOO_DEEP)])
        self.lines.setdefault(location, node.start_mark.line + 1)
        if not node.tag.startswith(_YAML_TAG) or node.tag.startswith(f"{_YAML_TAG}python"):
            self.refuse(node, location, f"tag {node.tag[:64]!r} is not accepted; write plain YAML values")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, location)
        with self.opened(node, location):
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, location)
            return [self.value(child, (*location, index)) for index, child in enumerate(node.value)]

    @contextmanager
    def opened(self, node: yaml.Node, location: Location) -> Iterator[None]:
        if id(node) in self.open:
            raise InvalidDocument([self.fault(node, location, "an alias refers to itself; write the value out")])
        self.open.add(id(node))
        yield
        self.open.remove(id(node))

    def mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.refuse(key_node, location, "keys must be plain text")
                continue
            key: str = key_node.value
            if key == "<<":
                self.refuse(key_node, location, "merge keys ('<<') are not accepted; write the fields out")
            elif problem := key_problem(key):
                self.refuse(key_node, location, f"key {key[:64]!a} {problem}")
            elif key in result:
                self.refuse(key_node, (*location, key), "is given twice; keep one of the two")
            else:
                self.lines[*location, key] = key_node.start_mark.line + 1
                result[key] = self.value(value_node, (*location, key))
        # `{...}` is how documentation abbreviates a section: all of its fields at their defaults.
        return {} if result == {"...": None} else result

    def scalar(self, node: yaml.ScalarNode, location: Location) -> Any:
        text = joined_surrogates(node.value)
        if problem := text_problem(text):
            self.refuse(node, location, f"the text {problem}")
            return None
        # A quoted scalar has a style, and a tag such as !!binary or !!timestamp is not ours to interpret: both are text.
        if node.style is not None:
            return text
        try:
            return plain_value(text)
        except ValueError as error:
            self.refuse(node, location, str(error))
            return None


def parse(text: str | bytes, source: str, of_kind: str | None = None) -> Document:
    """Reads one YAML document.

    Args:
        text: Of the file.
        source: Its name.
        of_kind: Of several documents, the one object of this kind is read.

    Raises:
        InvalidDocument: not UTF-8, too large, not YAML, several documents, or a value that is refused.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > MAX_BYTES:
        raise _invalid(source, f"is {len(raw)} bytes; at most {MAX_BYTES} are accepted: move bulk data into files")
    try:
        decoded = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _invalid(source, f"is not UTF-8 text (byte {error.start}); save it as UTF-8", line) from None
    _refuse_hidden(decoded, HIDDEN_LINE_BREAKS, source)
    nodes = _compose(decoded, source)
    others: tuple[str, ...] = ()
    if of_kind is not None and len(nodes) > 1:
        nodes, others = _of_kind(nodes, of_kind, source)
    if len(nodes) != 1:
        found = f"holds {len(nodes)} documents" if nodes else "is empty"
        raise _invalid(source, f"{found}; exactly one YAML document is expected", 1)
    reader = _Reader(source)
    data = reader.value(nodes[0], ())
    if not isinstance(data, dict):
        raise InvalidDocument(reader.faults or [Fault(source, (), "a mapping of fields is expected at the top", 1)])
    if not reader.faults:
        _refuse_hidden(decoded, BIDIRECTIONAL, source)  # in a comment: in a value it has been refused with its path
    return Document(source, data, reader.lines, reader.faults, others)


def _of_kind(nodes: list[yaml.Node], kind: str, source: str) -> tuple[list[yaml.Node], tuple[str, ...]]:
    """The document of this kind, and what the others are. Empty documents, as behind a last `---`, are none."""
    told = [(node, _entry(node, "kind"), node.start_mark.line + 1) for node in nodes if not _is_empty(node)]
    ours = [(node, line) for node, each, line in told if each == kind]
    if len(told) > 1 and len(ours) != 1:
        lines = f" (lines {', '.join(str(line) for _, line in ours[:8])})" if ours else ""
        message = f"holds {len(told)} documents, of which {len(ours)} are of kind {kind}{lines}; one is expected"
        raise _invalid(source, f"{message}: give each a file of its own", 1)
    others = tuple(
        f"{_entry(node, 'kind') or 'an object without a kind'} {_entry(node, 'metadata', 'name')}".strip()
        + f" (line {line})"
        for node, each, line in told
        if each != kind and len(told) > 1
    )
    return [node for node, _ in ours] or [node for node, _, _ in told], others


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value in ("", "~", "null")


def _entry(node: yaml.Node, *path: str) -> str:
    """The text at a path of keys, shortened; empty if there is none."""
    for key in path:
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        found = next((value for name, value in entries if name.value == key), None)
        if found is None:
            return ""
        node = found
    return visible(node.value[:64]) if isinstance(node, yaml.ScalarNode) else ""


def _compose(text: str, source: str) -> list[yaml.Node]:
    try:
        return list(yaml.compose_all(text, Loader=_Loader))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _invalid(source, hidden_character(text[error.position]), line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context
        message = problem if problem in {_TOO_MANY, _TOO_DEEP} else f"is not valid YAML: {problem}"
        raise _invalid(source, message, mark.line + 1 if mark else None) from None


def _refuse_hidden(text: str, characters: frozenset[str], source: str) -> None:
    for position, character in enumerate(text):
        if character in characters:
            raise _invalid(source, hidden_character(character), text.count("\n", 0, position) + 1)


def _invalid(source: str, message: str, line: int | None = None) -> InvalidDocument:
    return InvalidDocument([Fault(source, (), message, line)])


def read(path: str | Path, of_kind: str | None = None) -> Document:
    """Reads one YAML file.

    Args:
        path: Of the file.
        of_kind: As for `parse`.

    Raises:
        InvalidDocument: as `parse`, or the file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _invalid(str(path), f"cannot be read: {reason}") from None
    if len(raw) > MAX_BYTES:
        raise _invalid(str(path), f"is larger than {MAX_BYTES} bytes; move bulk data into files of its own")
    return parse(raw, str(path), of_kind)


def validate(model: type[Model], document: Document, at: Location = ()) -> Model:
    """Validates a document, or the part of it at `at`, and reports every fault with its path and line.

    Fields are known by the names that files use only: the API server would refuse the others.

    Raises:
        InvalidDocument: with one fault per failed field.
    """
    refused = {fault.location for fault in document.faults}
    try:
        result = model.model_validate(_part(document, at), by_alias=True, by_name=False)
    except ValidationError as error:
        found = [fault for fault in faults_of(error, document, at, model) if fault.location not in refused]
        raise _first([*document.faults, *found], max(0, error.error_count() - _MAX_DETAILS)) from None
    if document.faults:
        raise _first(document.faults)
    return result


def _first(faults: list[Fault], more: int = 0) -> InvalidDocument:
    told = sorted(faults, key=lambda fault: fault.line or 0)
    return InvalidDocument(told[:MAX_FAULTS], more + len(told[MAX_FAULTS:]))


def plain(data: Any, source: str, at: Location = ()) -> Document:
    """A document from plain data that others have read, such as the API server's, held to the limits of `parse`.

    Args:
        data: Of any shape.
        source: Where it is from.
        at: The part that is at fault when it is too large.

    Raises:
        InvalidDocument: it is too large, too deep or holds too many values.
    """
    values = size = 0
    layer: list[Any] = [data]
    for _ in range(MAX_DEPTH + 1):
        values += len(layer)
        size += sum(len(each) for each in layer if isinstance(each, str))
        inner: list[Any] = []
        for each in layer:
            if isinstance(each, dict):
                size += sum(len(key) for key in each if isinstance(key, str))
                inner.extend(each.values())
            elif isinstance(each, list | tuple):
                inner.extend(each)
        if values + len(inner) > MAX_NODES:
            raise InvalidDocument([Fault(source, at, f"holds more than {MAX_NODES} values; shorten it")])
        if size > MAX_BYTES:
            message = f"holds more than {MAX_BYTES} characters; move bulk data into files"
            raise InvalidDocument([Fault(source, at, message)])
        layer = inner
        if not layer:
            return Document(source, data)
    raise InvalidDocument([Fault(source, at, _TOO_DEEP)])


def _part(document: Document, at: Location) -> Any:
    data = document.data
    for depth, part in enumerate(at):
        if not _holds(data, part):
            raise InvalidDocument([*document.faults, document.fault(at[: depth + 1], "is required")])
        data = data[part]
    return data


def faults_of(
    error: ValidationError, document: Document, at: Location = (), model: type[BaseModel] | None = None
) -> list[Fault]:
    """Pydantic's errors as faults of the document, one for each value; names of union members are left out.

    With the model that was not met, a field that it does not have is answered with the one that was probably meant.
    """
    details: dict[Location, list[dict[str, Any]]] = {}
    for detail in error.errors(include_url=False)[:_MAX_DETAILS]:
        location = (*at, *detail["loc"])
        if detail["type"] != INCONSISTENT:
            location = _written(document.data, location, missing=detail["type"] == "missing")
        details.setdefault(location, []).append(dict(detail))
    # Of a union's alternatives, one that looked inside the value had the right shape: only its errors help.
    outer = {location[:length] for location in details for length in range(len(location))}
    shown = [
        (location, found) for location, found in details.items() if not (location in outer and _are_alternatives(found))
    ]
    unknown = [location for location, found in shown if any(each["type"] == "extra_forbidden" for each in found)]
    suggested = {} if model is None else _suggested(model, unknown, at)
    return [document.fault(location, suggested.get(location) or message_of(found)) for location, found in shown]


def _suggested(model: type[BaseModel], unknown: list[Location], at: Location) -> dict[Location, str]:
    if not unknown:
        return {}
    from adapter_api.suggestions import MAX_SUGGESTED, unknown_field  # reads the models' source: for faults alone

    return {location: unknown_field(model, location[len(at) :]) for location in unknown[:MAX_SUGGESTED]}


def _are_alternatives(found: list[dict[str, Any]]) -> bool:
    """Whether these may be the alternatives of a union that did not get inside its value."""
    return all(detail["type"].endswith("_type") or detail["type"] in {"literal_error", "too_short"} for detail in found)


def _written(data: Any, location: Location, *, missing: bool) -> Location:
    """Keeps the parts of a pydantic location that lead through the data; a missing field's own name stays."""
    kept: list[str | int] = []
    for position, part in enumerate(location):
        if _holds(data, part):
            kept.append(part)
            data = data[part]
        elif missing and position == len(location) - 1:
            kept.append(part)
    return tuple(kept)


def _holds(data: Any, part: str | int) -> bool:
    return (isinstance(data, dict) and part in data) or (
        isinstance(data, list) and isinstance(part, int) and 0 <= part < len(data)
    )


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml's, where it is there
    """Quotes also the texts that only YAML 1.2 takes for numbers, such as 1e5, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


_Dumper.add_implicit_resolver(f"{_YAML_TAG}float", re.compile(f"^(?:{FLOAT.pattern})$"), list("-+.0123456789"))
_Dumper.add_implicit_resolver(f"{_YAML_TAG}int", re.compile(f"^(?:{INTEGER.pattern})$"), list("-+0123456789"))


def dump(model: BaseModel) -> str:
    """The YAML document that `parse` and `validate` read back as an equal model."""
    return yaml.dump(model.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, width=100)


def dump_json(model: BaseModel) -> str:
    """As `dump`, but written as JSON, which is YAML, too: for programs, as it takes a twentieth of the time."""
    text = model.model_dump_json(indent=1)
    # YAML has the escapes \\x.. and \\U.., and takes these characters in no other way.
    return text.encode("ascii", "backslashreplace").decode().replace("\x7f", "\\x7f")
