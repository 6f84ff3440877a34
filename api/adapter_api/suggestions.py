"""PURE: a field that a model does not have -> the one that was probably meant, or the place where it is one."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from pydantic import BaseModel

from adapter_api.fields import ITEM, NAME, FieldText, fields_of

NOT_A_FIELD = "is not a field here"
UNKNOWN = f"{NOT_A_FIELD}; check its spelling and its indentation"
MAX_SUGGESTED = 20
"""Unknown fields of one document that are looked up: comparing names takes time, and one misplaced section has many."""
_LONGEST = 64
_NEAR, _VERY_NEAR = 0.7, 0.85
"""How alike names must be, in the same place and elsewhere, by difflib's ratio."""
_TELLING = 5
"""Letters of a name from which on a longer one that contains it is meant."""
_GPUS = {"gpu", "gpus", "numgpus", "ngpus", "gpuspernode"}
_RESOURCES = re.compile(r"cpu|memory|ephemeral-storage|(?:[a-z0-9-]+\.)+[a-z]+/[a-z0-9.-]+")
_OTHERS = {
    "lr": "learning_rate", "epochs": "num_train_epochs", "maxtrainepochs": "num_train_epochs",
    "maxsteps": "max_train_steps", "networkdim": "rank", "networkalpha": "alpha", "lorarank": "rank",
    "saveeverynsteps": "save_steps", "checkpointingsteps": "save_steps", "traindatadir": "data_root_path",
    "instancedatadir": "data_root_path", "enablebucket": "aspect_buckets", "snrgamma": "min_snr_gamma",
    "noiseoffset": "offset_noise", "replicas": "nodes", "numnodes": "nodes", "nnodes": "nodes", "workers": "nodes",
    "nprocpernode": "procsPerNode", "validationprompt": "rows", "validationprompts": "rows",
}  # fmt: skip
"""What other trainers and operators call a field of ours."""


def unknown_field(model: type[BaseModel], location: Sequence[str | int]) -> str:
    """What to say of a field at `location` that `model` does not have there."""
    name = location[-1]
    if not isinstance(name, str) or len(name) > _LONGEST:
        return UNKNOWN
    fields = fields_of(model)
    here = _place(fields, location[:-1])
    wanted = _OTHERS.get(_plain(name), name)
    siblings = {_plain(field.name): field.name for field in fields if field.parent == here}
    elsewhere = {_plain(field.name): field.name for field in fields if not field.path.startswith("status.")}
    if (same := siblings.get(_plain(wanted))) is not None:
        return _meant(same)
    if (resource := _resource(fields, name)) is not None:
        return resource
    if (longer := _longer(_plain(wanted), siblings)) is not None:
        return _meant(longer)
    if (same := elsewhere.get(_plain(wanted))) is not None:
        return _belongs(fields, here, same, as_written=same == name)
    return _misspelt(fields, here, _plain(wanted), siblings, elsewhere)


def _misspelt(
    fields: Iterable[FieldText], here: str, wanted: str, siblings: Mapping[str, str], elsewhere: Mapping[str, str]
) -> str:
    if near := get_close_matches(wanted, siblings, n=1, cutoff=_NEAR):
        return _meant(siblings[near[0]])
    if near := get_close_matches(wanted, elsewhere, n=1, cutoff=_VERY_NEAR):
        return _belongs(fields, here, elsewhere[near[0]], as_written=False)
    return UNKNOWN


def _longer(wanted: str, siblings: Mapping[str, str]) -> str | None:
    """A name in the same place that contains the one that was written."""
    return next((siblings[each] for each in siblings if len(wanted) >= _TELLING and wanted in each), None)


def _resource(fields: Iterable[FieldText], name: str) -> str | None:
    limits = next((field.path for field in fields if field.path.endswith("resources.limits")), None)
    if limits is None:
        return None
    if _RESOURCES.fullmatch(name):
        return f"{NOT_A_FIELD}; it belongs under {limits}"
    return f"{NOT_A_FIELD}; ask for GPUs under {limits}, such as nvidia.com/gpu" if _plain(name) in _GPUS else None


def _meant(name: str) -> str:
    return f"{NOT_A_FIELD}; did you mean {name}?"


def _belongs(fields: Iterable[FieldText], here: str, name: str, *, as_written: bool) -> str:
    """Names the places nearest to the one where the field was written."""
    found = [field.parent for field in fields if field.name == name and not field.path.startswith("status.")]

    def distance(parent: str) -> tuple[int, int]:
        """The longest common way first, then the shortest path."""
        return -_common(parent, here), parent.count(".")

    nearest = min(map(distance, found))
    shown = [parent or "the top" for parent in found if distance(parent) == nearest][:2]
    what = "it" if as_written else f"{name} is what it is called, and"
    return f"{NOT_A_FIELD}; {what} belongs under {' or '.join(shown)}"


def _common(one: str, other: str) -> int:
    count = 0
    for left, right in zip(one.split("."), other.split("."), strict=False):
        if left != right:
            break
        count += 1
    return count


def _place(fields: Iterable[FieldText], location: Sequence[str | int]) -> str:
    """The location of a section, as paths of fields name it."""
    parents = {field.parent for field in fields}
    path = ""
    for part in location:
        if isinstance(part, int):
            path += ITEM
        else:
            named = f"{path}.{part}" if path else part
            path = named if any(each.startswith(named) for each in parents) else f"{path}.{NAME}"
    return path


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
