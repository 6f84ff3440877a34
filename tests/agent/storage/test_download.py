"""Downloads through a network and a store that refuse, stall, break off and damage: never wrong content, never stuck."""

import hashlib
import itertools
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adapter_agent.errors import Damaged, PreconditionFailed, StorageError, UnreliableConnection
from adapter_agent.storage import connections, ranges
from adapter_agent.storage.direct_content import DirectContent
from adapter_agent.storage.download import partial_of, receive
from adapter_agent.storage.ranges import Expected
from adapter_agent.storage.store import Store
from tests.agent.support import faulty_proxy
from tests.agent.support.faulty_proxy import Proxy, Request

MIB = 2**20


@pytest.fixture(autouse=True, params=["by ranges", "by streams"])
def small_ranges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANGE_BYTES", "STREAM_BYTES"):
        monkeypatch.setattr(ranges, name, MIB)
    monkeypatch.setattr(ranges, "BUSY", math.inf if request.param == "by ranges" else 0.0)
    monkeypatch.setattr(ranges, "_memory", ranges._Memory())
    monkeypatch.setattr(ranges, "FIRST_DELAY_SECONDS", 0.01)


@pytest.fixture
def body(store: Store) -> bytes:
    """Of seven ranges, the last one short, and in the store under `large`."""
    body = os.urandom(6 * MIB + 12_345)
    store.put("large", body)
    return body


def expected_of(body: bytes) -> Expected:
    return Expected(len(body), hashlib.sha256(body).hexdigest())


def reads(proxy: Proxy) -> int:
    return sum(request.method == "GET" for request in proxy.log)


def the_first(count: int, faults: tuple[str, ...]) -> Callable[[Request], str]:
    """So many reads go wrong, in turn by each of `faults`."""
    left = itertools.chain(itertools.islice(itertools.cycle(faults), count), itertools.repeat("pass"))
    return lambda request: next(left) if request.method == "GET" else "pass"


@pytest.mark.parametrize(
    "faults",
    [("slow_down",), ("cut",), ("reset",), ("lose", "lose_before"), ("stall",)],
    ids=lambda faults: faults[0],
)
def test_what_breaks_off_is_gone_on_with_until_it_is_whole(
    through: Store, proxy: Proxy, body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: tuple[str, ...]
) -> None:
    monkeypatch.setattr(faulty_proxy, "STALL_SECONDS", 0.3)
    proxy.rule = the_first(5, faults)
    receive(through, "large", tmp_path / "back", expected_of(body), only_safe=False)
    assert (tmp_path / "back").read_bytes() == body
    assert reads(proxy) > 7 or faults == ("stall",)


def test_what_was_damaged_on_its_way_is_fetched_again(
    through: Store, proxy: Proxy, body: bytes, tmp_path: Path
) -> None:
    proxy.rule = lambda _: "flip" if reads(proxy) == 3 else "pass"
    receive(through, "large", tmp_path / "back", expected_of(body), only_safe=False)
    assert (tmp_path / "back").read_bytes() == body


def test_a_way_that_damages_always_is_not_taken_for_a_damaged_store(
    through: Store, proxy: Proxy, body: bytes, tmp_path: Path
) -> None:
    proxy.rule = lambda request: "flip" if request.method == "GET" else "pass"
    with pytest.raises(UnreliableConnection, match="differently each time; look at the network"):
        receive(through, "large", tmp_path / "back", expected_of(body), only_safe=False)
    assert not list(tmp_path.iterdir())


def test_what_the_store_holds_damaged_is_damaged_on_the_second_look(store: Store, body: bytes, tmp_path: Path) -> None:
    store.put("large", b"x" + body[1:])
    with pytest.raises(Damaged, match="its content is damaged"):
        receive(store, "large", tmp_path / "back", expected_of(body), only_safe=False)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_download_goes_on_where_it_was(
    through: Store, proxy: Proxy, body: bytes, tmp_path: Path
) -> None:
    proxy.rule = lambda request: "lose_before" if request.first >= 4 * MIB else "pass"
    with pytest.raises(StorageError):
        receive(through, "large", tmp_path / "back", expected_of(body), only_safe=False)
    assert partial_of(tmp_path / "back").stat().st_size == 4 * MIB
    told: list[int] = []
    proxy.rule, before = (lambda _: "pass"), len(proxy.log)
    receive(through, "large", tmp_path / "back", expected_of(body), only_safe=False, on_bytes=told.append)
    assert sorted(request.first for request in proxy.log[before:]) == [4 * MIB, 5 * MIB, 6 * MIB]
    assert sum(told) == len(body)
    assert (tmp_path / "back").read_bytes() == body


@pytest.mark.parametrize("there", [b"\0" * MIB, b"\0" * 20 * MIB], ids=["torn", "too long"])
def test_a_beginning_that_is_not_the_files_is_thrown_away(
    store: Store, body: bytes, tmp_path: Path, there: bytes
) -> None:
    partial_of(tmp_path / "back").write_bytes(there)
    receive(store, "large", tmp_path / "back", expected_of(body), only_safe=False)
    assert (tmp_path / "back").read_bytes() == body


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 2 * MIB])
def test_files_of_every_size_come_back_exactly(store: Store, tmp_path: Path, size: int) -> None:
    body = os.urandom(size)
    store.put("file", body)
    receive(store, "file", tmp_path / "back", expected_of(body), only_safe=False)
    assert (tmp_path / "back").read_bytes() == body


def test_ranges_of_two_objects_are_never_put_together(
    store: Store, through: Store, proxy: Proxy, body: bytes, tmp_path: Path
) -> None:
    facts = store.head("large")
    assert facts is not None

    def replace_it_meanwhile(_: Request) -> str:
        if reads(proxy) == 3:
            store.put("large", os.urandom(len(body)))
        return "pass"

    proxy.rule = replace_it_meanwhile
    with pytest.raises(PreconditionFailed):
        receive(through, "large", tmp_path / "back", Expected(len(body), None, facts.etag), only_safe=False)
    assert not (tmp_path / "back").exists()


def test_memory_is_lent_and_given_back_whatever_happens(
    through: Store, proxy: Proxy, body: bytes, tmp_path: Path
) -> None:
    proxy.rule = lambda _: "unknown_key"
    for _ in range(3):
        with pytest.raises(StorageError, match="check AWS_ACCESS_KEY_ID"):
            receive(through, "large", tmp_path / "back", expected_of(body), only_safe=False)
    proxy.rule = lambda _: "pass"
    receive(through, "large", tmp_path / "back", expected_of(body), only_safe=False)
    assert (tmp_path / "back").read_bytes() == body


@pytest.mark.parametrize("change", [lambda body: body[:-1], lambda body: body + b"x"], ids=["shorter", "longer"])
def test_an_object_of_another_size_is_damaged(
    store: Store, body: bytes, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    store.put("large", change(body))
    with pytest.raises(Damaged):
        receive(store, "large", tmp_path / "back", expected_of(body), only_safe=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("used", "asked"), [(1.0, [0, 1, 5]), (0.1, [0, 1, 2, 3, 4, 5, 6])], ids=["busy", "idle"])
def test_a_stream_goes_on_while_it_keeps_the_processor_busy(
    through: Store, proxy: Proxy, body: bytes, monkeypatch: pytest.MonkeyPatch, used: float, asked: list[int]
) -> None:
    """Of each second, `used` on the processor; a range has 1 MiB, what a stream goes on with 4."""
    monkeypatch.setattr(ranges, "STREAM_BYTES", 4 * MIB)
    monkeypatch.setattr(ranges, "BUSY", 0.5)
    clock = itertools.count().__next__
    processor = map(used.__mul__, itertools.count()).__next__
    assert b"".join(map(bytes, ranges.read(through, "large", 0, expected_of(body), clock, processor))) == body
    assert sorted(request.first // MIB for request in proxy.log) == asked


def test_content_that_the_sdk_has_to_read_is_the_same(
    store: Store, body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it has with TLS, and through a proxy."""
    monkeypatch.setattr(DirectContent, "readinto", None)
    monkeypatch.setattr(connections.Connections, "can_carry", lambda *_: False)
    receive(store, "large", tmp_path / "back", expected_of(body), only_safe=False)
    assert (tmp_path / "back").read_bytes() == body
