"""Which files are accepted from storage: tensors as safetensors, and text; nothing that could run code when it is read."""

import json
from pathlib import PurePosixPath

from adapter_agent.errors import Damaged

HEAD_BYTES = 512
"""How much of a file's beginning is looked at."""

_TEXT = {".json", ".jsonl", ".yaml", ".yml", ".txt", ".md"}
_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_SAFETENSORS_HEADER = 100 * 2**20
"""As the safetensors library has it."""
_ACCEPTED = "safetensors, JSON, YAML, text and PNG files are accepted"


def refuse_name(path: str) -> None:
    """Raises `Damaged` unless the ending of `path` is one of the accepted kinds."""
    if PurePosixPath(path).suffix not in {*_TEXT, ".safetensors", ".png"}:
        raise Damaged(f"{path}: only {_ACCEPTED}; pickled files (.pt, .pth, .bin, .pkl, .ckpt) can run code when read")


def refuse_content(path: str, head: bytes) -> None:
    """Raises `Damaged` if `head`, the first HEAD_BYTES of the file, is not what the file's ending says."""
    suffix = PurePosixPath(path).suffix
    if suffix == ".safetensors":
        length = int.from_bytes(head[:8], "little")
        fits = len(head) > 8 and 2 <= length <= _MAX_SAFETENSORS_HEADER and head[8:9] == b"{"
    elif suffix == ".png":
        fits = head.startswith(_PNG)
    else:
        fits = _is_text(head)
    if not fits:
        raise Damaged(f"{path}: its content is not what its name says; only {_ACCEPTED}")


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be cut in two.
        if error.start < len(head) - 3 or len(head) < HEAD_BYTES:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\r\n\f" for character in text)


def read_json_object(raw: bytes, source: str) -> dict[str, object]:
    """A JSON object.

    Raises:
        Damaged: not JSON, or not an object.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{source}: is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise Damaged(f"{source}: a JSON object is expected")
    return data
