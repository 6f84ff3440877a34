"""What the pairs file points at is checked before the first step, and every fault has file and line."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from adapter_api.columns import columns_of
from adapter_api.data import Column
from adapter_trainer.data.pairs_table import read_table
from adapter_trainer.data.verify import check_rows, read_embedding, resolve_widths
from adapter_trainer.errors import InvalidData
from tests.trainer.support import tiny

EMBEDDING = {"name": "face", "kind": "embedding"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.ones(4, dtype=np.float32))
    return tmp_path


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def check(root: Path, text: str, *columns: dict[str, Any], level: str = "decode") -> Any:
    (root / "train.txt").write_text(text, encoding="utf-8")
    config = tiny.configuration(tiny.settings(root, {"data": {"params": {"columns": [tiny.LABEL_COLUMN, *columns]}}}))
    table = root / "train.txt"
    rows = read_table(config.data.params, columns_of(config))
    config = resolve_widths(config, rows, table)
    check_rows(rows, columns_of(config), level, table)
    return config


def fault(root: Path, text: str, *columns: dict[str, Any], level: str = "decode") -> str:
    with pytest.raises(InvalidData) as caught:
        check(root, text, *columns, level=level)
    return str(caught.value).replace(f"{root / 'train.txt'}:", "")


def write_broken_images(root: Path) -> None:
    random = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(random).save(root / "whole.png")
    whole = (root / "whole.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "flipped.png").write_bytes(whole[:200] + bytes([whole[200] ^ 255]) + whole[201:])
    (root / "text.png").write_text("no picture", encoding="utf-8")
    (root / "empty.png").touch()
    (root / "bomb.png").write_bytes(png_header(60_000, 60_000))
    (root / "large.png").write_bytes(png_header(2**14, 2**14 + 1))


@pytest.mark.parametrize("name", ["cut", "flipped", "text", "empty"])
def test_a_broken_image_names_its_line(root: Path, name: str) -> None:
    write_broken_images(root)
    assert fault(root, f"a.png\t\t1\n{name}.png\t\t1\n").startswith(f"2: image: {name}.png cannot be decoded: ")


@pytest.mark.parametrize("level", ["open", "decode"])
@pytest.mark.parametrize("name", ["bomb", "large"])
def test_a_decompression_bomb_is_refused_unopened(root: Path, name: str, level: str) -> None:
    write_broken_images(root)
    assert fault(root, f"{name}.png\t\t1\n", level=level).startswith(f"1: image: {name}.png claims ")


def test_a_header_check_finds_what_is_no_image_and_leaves_cut_ones(root: Path) -> None:
    write_broken_images(root)
    check(root, "cut.png\t\t1\n", level="open")
    assert fault(root, "text.png\t\t1\n", level="open").startswith("1: image: text.png cannot be opened: ")
    check(root, "text.png\t\t1\n", level="none")


def test_reference_images_are_checked_too(root: Path) -> None:
    write_broken_images(root)
    column = {"name": "style", "kind": "reference"}
    assert fault(root, "a.png\t\t1\ttext.png\n", column).startswith("1: style: text.png cannot be decoded")


def write_embeddings(root: Path) -> None:
    np.save(root / "narrow.npy", np.ones(3, dtype=np.float32))
    np.save(root / "table.npy", np.ones((2, 4), dtype=np.float32))
    np.save(root / "nan.npy", np.array([1, np.nan, 3, 4], dtype=np.float32))
    np.save(root / "huge.npy", np.array([1, 1e300, 3, 4]))
    np.save(root / "words.npy", np.array(["a", "b", "c", "d"]))
    np.save(root / "complex.npy", np.ones(4, dtype=np.complex64))
    np.save(root / "pickled.npy", np.array([{}, 1, 2, 3], dtype=object), allow_pickle=True)
    (root / "cut.npy").write_bytes((root / "a.npy").read_bytes()[:-3])
    (root / "empty.npy").touch()
    claims = b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,), }"
    (root / "bomb.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(claims)) + claims)
    (root / "text.txt").write_text("1 2 3 4", encoding="utf-8")
    save_file({"a": torch.ones(4), "b": torch.ones(4)}, root / "two.safetensors")
    save_file({"a": torch.ones(4, dtype=torch.bfloat16)}, root / "bfloat16.safetensors")
    (root / "broken.safetensors").write_bytes(b"\xff" * 64)


BROKEN = [
    ("narrow.npy", "narrow.npy has 3 numbers, not 4"),
    ("table.npy", "table.npy has shape (2, 4) of float32; one vector"),
    ("nan.npy", "nan.npy contains NaN or infinity"),
    ("huge.npy", "huge.npy contains NaN or infinity"),
    ("words.npy", "words.npy has shape (4,) of <U1; one vector of numbers"),
    ("complex.npy", "complex.npy has shape (4,) of complex64"),
    ("pickled.npy", "pickled.npy cannot be read as an embedding: Object arrays cannot be loaded"),
    ("cut.npy", "cut.npy cannot be read as an embedding: "),
    ("empty.npy", "empty.npy cannot be read as an embedding: "),
    ("bomb.npy", "bomb.npy cannot be read as an embedding: "),
    ("text.txt", "text.txt is neither .npy nor .safetensors"),
    ("two.safetensors", "two.safetensors holds 2 tensors; one is expected"),
    ("broken.safetensors", "broken.safetensors cannot be read as an embedding: "),
]


@pytest.mark.parametrize(("name", "message"), BROKEN, ids=[name for name, _ in BROKEN])
def test_a_bad_embedding_names_its_line(root: Path, name: str, message: str) -> None:
    write_embeddings(root)
    assert fault(root, f"a.png\t\t1\ta.npy\na.png\t\t1\t{name}\n", EMBEDDING).startswith(f"2: face: {message}")


def test_a_bad_first_embedding_names_its_line_too(root: Path) -> None:
    write_embeddings(root)
    assert fault(root, "a.png\t\t1\tnan.npy\n", EMBEDDING).startswith("1: face: nan.npy contains NaN")


def test_embeddings_are_read_from_both_formats_and_from_single_rows(root: Path) -> None:
    np.save(root / "row.npy", np.arange(4, dtype=np.float64)[None])
    np.save(root / "one.npy", np.ones(1, dtype=np.int8))
    save_file({"x": torch.arange(4)}, root / "x.safetensors")
    assert read_embedding(root / "row.npy").tolist() == read_embedding(root / "x.safetensors").tolist() == [0, 1, 2, 3]
    assert read_embedding(root / "one.npy").tolist() == [1]
    assert read_embedding(root / "row.npy").dtype == np.float32


def test_widths_left_open_are_read_off_the_data(root: Path) -> None:
    text = "a.png\t\t1\t6\t1 2 3\ta.npy\na.png\t\t0\t2\t4 5 6\ta.npy\n"
    open_columns = [{"name": "kind", "kind": "label"}, {"name": "shape", "kind": "vector"}, EMBEDDING]
    config = check(root, text, *open_columns)
    assert [column.width for column in config.data.params.columns] == [tiny.LABELS, 7, 3, 4]


def test_vectors_of_different_lengths_name_the_line(root: Path) -> None:
    text = "a.png\t\t1\t1 2 3\na.png\t\t1\t1 2\n"
    assert fault(root, text, {"name": "shape", "kind": "vector"}) == "2: shape: has 2 numbers, line 1 has 3"


def test_implied_columns_are_declared_once_their_widths_are_known(root: Path) -> None:
    (root / "train.txt").write_text("a.png\tcat\t4\n", encoding="utf-8")
    settings = tiny.settings(root)
    del settings["data"]["params"]["columns"]
    config = tiny.configuration(settings)
    rows = read_table(config.data.params, columns_of(config))
    resolved = resolve_widths(config, rows, root / "train.txt")
    assert resolved.data.params.columns == (Column(name="label", kind="label", width=5),)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float16, torch.float64])
def test_an_embedding_in_another_precision_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.tensor([0.5, -1.0, 2.0])
    save_file({"embedding": values.to(dtype)}, tmp_path / "e.safetensors")
    assert read_embedding(tmp_path / "e.safetensors").tolist() == values.tolist()


def test_a_numpy_file_of_what_numpy_does_not_know_says_what_to_do(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.zeros(3, np.dtype("V2")))  # as ml_dtypes' bfloat16 is saved
    with pytest.raises(
        InvalidData, match=r"one vector of numbers is expected; save it as float32, or as \.safetensors"
    ):
        read_embedding(tmp_path / "e.npy")
