"""Downloads that break off go on; what is damaged is never taken for whole."""

import hashlib
from pathlib import Path

import pytest

from adapter_agent import download
from adapter_agent.errors import Damaged, EndpointUnreachable
from adapter_agent.store import Store
from adapter_api.checkpoint import FileEntry
from tests.agent.faulty_proxy import Proxy, Request
from tests.agent.node import safetensors

BODY = safetensors(bytes(range(256)) * 4000)
FILE = FileEntry(path="a.safetensors", size=len(BODY), sha256=hashlib.sha256(BODY).hexdigest(), node=0)


def reads(proxy: Proxy) -> list[Request]:
    return [request for request in proxy.log if request.method == "GET"]


def test_what_has_arrived_is_not_fetched_again(store: Store, proxy: Proxy, through: Store, tmp_path: Path) -> None:
    store.put("a.safetensors", BODY)
    told: list[int] = []

    def cut_the_first(_: Request) -> str:
        return "cut" if len(reads(proxy)) == 1 else "pass"

    proxy.rule = cut_the_first
    download.receive(through, "a.safetensors", tmp_path / "a.safetensors", FILE, told.append)
    assert (tmp_path / "a.safetensors").read_bytes() == BODY
    assert sum(told) == len(BODY)
    assert len(reads(proxy)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_download_that_breaks_off_too_often_stays_for_the_next_call(
    store: Store, proxy: Proxy, through: Store, tmp_path: Path
) -> None:
    store.put("a.safetensors", BODY)
    proxy.rule = lambda _: "cut"
    with pytest.raises(EndpointUnreachable):
        download.receive(through, "a.safetensors", tmp_path / "a.safetensors", FILE)
    assert not (tmp_path / "a.safetensors").exists()
    arrived = (tmp_path / ".a.safetensors.partial").stat().st_size
    assert arrived > len(BODY) // 2
    proxy.rule = lambda _: "pass"
    download.receive(through, "a.safetensors", tmp_path / "a.safetensors", FILE)
    assert (tmp_path / "a.safetensors").read_bytes() == BODY


def test_a_damaged_beginning_is_fetched_anew(store: Store, tmp_path: Path) -> None:
    store.put("a.safetensors", BODY)
    (tmp_path / ".a.safetensors.partial").write_bytes(b"x" * 100)
    download.receive(store, "a.safetensors", tmp_path / "a.safetensors", FILE)
    assert (tmp_path / "a.safetensors").read_bytes() == BODY


@pytest.mark.parametrize("stored", [BODY[:-1], BODY + b"x", BODY[:-1] + b"!"], ids=["shorter", "longer", "other"])
def test_a_damaged_object_is_refused_and_leaves_nothing(store: Store, tmp_path: Path, stored: bytes) -> None:
    store.put("a.safetensors", stored)
    with pytest.raises(Damaged):
        download.receive(store, "a.safetensors", tmp_path / "a.safetensors", FILE)
    assert not list(tmp_path.iterdir())
