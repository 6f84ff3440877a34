"""PURE: what differs between two checkpoints: files, figures, configuration, tensors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapter_agent.checkpoints.tensors import Tensor
from adapter_api.checkpoint import CheckpointManifest, FileEntry

Kind = Literal["added", "removed", "changed", "same"]


@dataclass(frozen=True)
class FileChange:
    """One path of two checkpoints."""

    path: str
    before: FileEntry | None
    after: FileEntry | None

    @property
    def kind(self) -> Kind:
        """What happened to it."""
        if self.before is None:
            return "added"
        if self.after is None:
            return "removed"
        return "same" if self.before.sha256 == self.after.sha256 else "changed"


@dataclass(frozen=True)
class ValueChange:
    """A figure, version or configuration field that differs; None where it is absent."""

    name: str
    before: Any
    after: Any


def files(before: CheckpointManifest, after: CheckpointManifest) -> list[FileChange]:
    """Every path of either, sorted."""
    old, new = ({file.path: file for file in manifest.files} for manifest in (before, after))
    return [FileChange(path, old.get(path), new.get(path)) for path in sorted({*old, *new})]


def values(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> Iterator[ValueChange]:
    """Every value that differs, objects inside objects by their dotted path."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        where = f"{path}.{name}" if path else name
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from values(old, new, where)
        elif old != new:
            yield ValueChange(where, old, new)


def configuration(before: CheckpointManifest, after: CheckpointManifest) -> list[ValueChange]:
    """Fields of the training configuration that differ."""
    old, new = (
        {} if manifest.training is None else manifest.training.model_dump(mode="json") for manifest in (before, after)
    )
    return list(values(old, new))


def tensors(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Iterator[str]:
    """One line for each tensor that is added, removed, or of another type, shape or content, where that was read."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old is None and new is not None:
            yield f"{name}: added, {_shape(new)}"
        elif new is None and old is not None:
            yield f"{name}: removed, {_shape(old)}"
        elif old is not None and new is not None and _shape(old) != _shape(new):
            yield f"{name}: {_shape(old)} became {_shape(new)}"
        elif old is not None and new is not None and old.sha256 != new.sha256:
            yield f"{name}: other values"


def _shape(tensor: Tensor) -> str:
    return f"{tensor.dtype} [{', '.join(map(str, tensor.shape))}]"
