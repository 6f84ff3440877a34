"""What committed safetensors files hold, tensor by tensor, without loading any (https://github.com/huggingface/safetensors)."""

import hashlib
from dataclasses import dataclass, replace

from adapter_agent.errors import Damaged
from adapter_agent.storage import content
from adapter_agent.storage.multipart import OnBytes
from adapter_agent.storage.reading import chunks
from adapter_agent.storage.store import Store

_MAX_HEADER = 100 * 2**20
"""As the safetensors library has it."""


@dataclass(frozen=True)
class Tensor:
    """What a header says about one tensor, and the SHA-256 of its bytes where they were read."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Of its bytes in the file."""
    end: int
    sha256: str | None = None


def tensors(store: Store, key: str, size: int, on_bytes: OnBytes | None = None) -> dict[str, Tensor]:
    """The tensors of a file of `size` bytes by name; with `on_bytes` all of it is read, else its header alone.

    Raises:
        Damaged: it is not a safetensors file.
    """
    place = store.uri_of(key)
    length = int.from_bytes(b"".join(chunks(store, key, 0, 7)), "little")
    if not 2 <= length <= min(size - 8, _MAX_HEADER):
        raise Damaged(f"{place}: is not a safetensors file")
    header = content.read_json_object(b"".join(chunks(store, key, 8, 7 + length)), place)
    try:
        found = {name: _tensor(about, 8 + length) for name, about in header.items() if name != "__metadata__"}
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{place}: its safetensors header cannot be understood ({error})") from None
    return found if on_bytes is None else _digested(store, key, found, on_bytes)


def _tensor(about: object, data: int) -> Tensor:
    if not isinstance(about, dict):
        raise TypeError("a tensor is described by an object")
    begin, end = about["data_offsets"]
    return Tensor(str(about["dtype"]), tuple(about["shape"]), data + int(begin), data + int(end))


def _digested(store: Store, key: str, found: dict[str, Tensor], on_bytes: OnBytes) -> dict[str, Tensor]:
    """One pass over the file: its tensors lie one behind the other."""
    digests = {name: hashlib.sha256() for name in found}
    waiting = sorted(found, key=lambda name: (found[name].begin, found[name].end))
    place = 0
    for chunk in chunks(store, key):
        on_bytes(len(chunk))
        while waiting and found[waiting[0]].end <= place:
            waiting.pop(0)
        for name in waiting:
            tensor = found[name]
            if tensor.begin >= place + len(chunk):
                break
            digests[name].update(memoryview(chunk)[max(tensor.begin - place, 0) : max(tensor.end - place, 0)])
        place += len(chunk)
    return {name: replace(tensor, sha256=digests[name].hexdigest()) for name, tensor in found.items()}
