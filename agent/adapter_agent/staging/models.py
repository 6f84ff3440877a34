"""Models from object storage: which files of an address training needs, and staging those before it starts."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from adapter_agent.errors import NothingThere, StorageError
from adapter_agent.staging import staged_files
from adapter_agent.storage.store import ObjectFacts, Store
from adapter_api.sources import PIPELINE_FIELD, StoredModel, is_single_file, staged_name

PIPELINE_INDEX = "model_index.json"
CONFIG = "config.json"
TOKENIZERS = frozenset({"tokenizer.json", "tokenizer_config.json", "vocab.json"})
"""A tokenizer's folder has one of them."""

_SHARD = r"(?:-\d{5}-of-\d{5})?"
_WEIGHTS = re.compile(
    rf"(?:diffusion_pytorch_model|model)(?:{_SHARD}\.safetensors|\.(?P<before>[^.]+?){_SHARD}\.safetensors"
    r"|-\d{5}-of-\d{5}\.(?P<after>[^.]+)\.safetensors)"
)
"""Weight files by the names that diffusers and transformers load; a variant stands before or after the shard's number."""


def stage(models: Iterable[StoredModel], folder: Path, connect: Callable[[str], Store]) -> int:
    """Downloads what these models need, each address to a folder of its own below `folder`; what is there stays.

    Args:
        models: All that training loads.
        folder: Of a node's models.
        connect: A store at an address.

    Returns:
        Number of files that were fetched.

    Raises:
        NothingThere: an address does not hold what it is named for.
        StorageError: storage cannot be used, or holds something damaged. Both name the field.
    """
    by_address: dict[str, list[StoredModel]] = {}
    for model in models:
        by_address.setdefault(model.uri, []).append(model)
    fetched = 0
    for uri, wanted in by_address.items():
        try:
            if is_single_file(uri):
                parent, _, name = uri.rpartition("/")
                store = connect(parent)
                files = [_one(store, name)]
            else:
                store = connect(uri)
                files = needed_files(list(staged_files.files(store)), wanted, f"{uri} at {store.endpoint}")
            target = folder / staged_name(uri)
            fetched += staged_files.fetch(store, target, files, is_model=True)
        except StorageError as error:
            raise type(error)(f"{wanted[0].field}: {error}") from error
    return fetched


def _one(store: Store, name: str) -> ObjectFacts:
    found = store.head(name)
    if found is None:
        raise NothingThere(
            f"{store.uri_of(name)} at {store.endpoint} is not there; correct the address, or upload the file"
        )
    return found


def needed_files(there: Sequence[ObjectFacts], models: Iterable[StoredModel], place: str) -> list[ObjectFacts]:
    """PURE: of all objects below an address, those that training loads.

    Raises:
        NothingThere: something is missing; the message says what, and what to do.
    """
    if not there:
        raise NothingThere(f"{place} holds no objects; correct the address, or upload the model's folder there")
    needed: dict[str, ObjectFacts] = {}
    for model in models:
        if model.field == PIPELINE_FIELD and all(facts.key != PIPELINE_INDEX for facts in there):
            raise NothingThere(
                f"{place} holds no {PIPELINE_INDEX}, so it is not a pipeline; name the folder that a pipeline's "
                "save_pretrained has written, or name each part's own source"
            )
        beside = [facts for facts in there if str(PurePosixPath(facts.key).parent) == (model.folder.strip("/") or ".")]
        needed |= {facts.key: facts for facts in _CHOICES[model.holds](beside, model, place)}
    return list(needed.values())


def _tokenizer(beside: list[ObjectFacts], model: StoredModel, place: str) -> list[ObjectFacts]:
    if not TOKENIZERS & {_name(facts) for facts in beside}:
        raise NothingThere(
            f"{place} holds no tokenizer in {_folder(model)}: one of {', '.join(sorted(TOKENIZERS))} is needed"
        )
    return _texts(beside)


def _weights(beside: list[ObjectFacts], model: StoredModel, place: str) -> list[ObjectFacts]:
    if all(_name(facts) != CONFIG for facts in beside):
        raise NothingThere(
            f"{place} holds no {CONFIG} in {_folder(model)}; name the folder that save_pretrained has written"
        )
    matches = [(facts, _WEIGHTS.fullmatch(_name(facts))) for facts in beside]
    weights = [
        facts for facts, match in matches if match is not None and (match["before"] or match["after"]) == model.variant
    ]
    if not weights:
        others = sorted(_name(facts) for facts in beside if PurePosixPath(facts.key).suffix != ".json")
        what = "safetensors weights" if model.variant is None else f"safetensors weights of variant {model.variant}"
        raise NothingThere(
            f"{place} holds no {what} in {_folder(model)}, only: {', '.join(others[:8]) or 'none'}; upload what "
            "save_pretrained writes with safe_serialization=True, or correct `variant`"
        )
    return [*_texts(beside), *weights]


def _parts(beside: list[ObjectFacts], model: StoredModel, place: str) -> list[ObjectFacts]:
    parts = [facts for facts in beside if PurePosixPath(facts.key).suffix == ".safetensors"]
    if not parts:
        raise NothingThere(
            f"{place} holds no .safetensors file in {_folder(model)}; upload what `atj export` writes there, or correct "
            "the address"
        )
    return parts


def _texts(beside: list[ObjectFacts]) -> list[ObjectFacts]:
    """Configurations, vocabularies and lists of shards: small, so that all of them are taken."""
    return [facts for facts in beside if PurePosixPath(facts.key).suffix in {".json", ".txt"}]


def _scheduler(beside: list[ObjectFacts], _model: StoredModel, _place: str) -> list[ObjectFacts]:
    """Its settings, where the pipeline has them."""
    return _texts(beside)


_CHOICES = {"tokenizer": _tokenizer, "weights": _weights, "parts": _parts, "scheduler": _scheduler}


def _name(facts: ObjectFacts) -> str:
    return PurePosixPath(facts.key).name


def _folder(model: StoredModel) -> str:
    return f"folder {model.folder}" if model.folder else "its topmost folder"
