"""What a pod answers is its job's matter alone: whatever it is, the reader goes on, and asks nobody whom a pod names.

HOSTILE_REPLIES says how many random replies are given: 300 by default.
"""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter_api.progress import MAX_PROGRESS_BYTES, Progress
from adapter_operator.decide.decide import decide
from adapter_operator.observe.cache import Cache
from adapter_operator.observe.progress import NoAnswer, ProgressReader, address_of, ask, new_session, readable
from adapter_operator.settings import Settings
from adapter_operator.tell import job_status
from tests.operator.support.builders import KEY, NOW, after, job, observed, pod, raw_job, raw_pod, status

COUNT = int(os.environ.get("HOSTILE_REPLIES", "300"))
GOOD = Progress(step=5, total_steps=10, updated_at=NOW)
Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def agent(reply: Reply) -> AsyncIterator[str]:
    """The address of somebody who answers every connection like this."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await reply(reader, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/progress"


def says(raw: bytes) -> Reply:
    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return reply


def http(body: bytes, *headers: str, status_line: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status_line}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


async def answer_to(reply: Reply) -> Progress:
    async with agent(reply) as address, new_session() as session:
        return await ask(session, address)


def test_an_answer_is_read() -> None:
    assert asyncio.run(answer_to(says(http(GOOD.model_dump_json().encode())))) == GOOD


def test_an_answer_that_comes_in_several_segments_is_read_whole() -> None:
    body = GOOD.model_copy(update={"upload_error": "x" * 2000}).model_dump_json().encode()

    async def slowly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in (http(b"")[:0], f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body[:3], body[3:900], body[900:]):  # fmt: skip
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)

    assert asyncio.run(answer_to(slowly)).upload_error == "x" * 2000


def test_an_answer_of_the_largest_size_is_read_and_none_beyond() -> None:
    body = GOOD.model_dump_json().encode()
    full = body + b" " * (MAX_PROGRESS_BYTES - len(body))
    assert asyncio.run(answer_to(says(http(full)))) == GOOD
    with pytest.raises(NoAnswer, match="more than 65536 bytes"):
        asyncio.run(answer_to(says(http(full + b" "))))


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(code: int) -> None:
    asked: list[bytes] = []

    async def run() -> None:
        async def elsewhere(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(b"asked")
            writer.write(http(GOOD.model_dump_json().encode()))

        async with agent(elsewhere) as target:
            redirect = http(b"", f"Location: {target}", status_line=f"{code} Moved")
            with pytest.raises(NoAnswer, match=f"status {code}"):
                await answer_to(says(redirect))

    asyncio.run(run())
    assert not asked


def test_what_is_compressed_is_not_unpacked() -> None:
    import gzip

    bomb = http(gzip.compress(GOOD.model_dump_json().encode() + b" " * 10_000_000), "Content-Encoding: gzip")
    with pytest.raises(NoAnswer, match="not valid progress"):
        asyncio.run(answer_to(says(bomb)))


@pytest.mark.parametrize("ip", ["169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1", "::", "::ffff:169.254.169.254"])
def test_what_is_a_nodes_and_no_pods_address_is_not_asked(ip: str) -> None:
    with pytest.raises(NoAnswer, match="not a pod's address"):
        address_of(ip)


@pytest.mark.parametrize("ip", ["", "example.org", "10.0.0.1:80", "10.0.0.1/x", "10.0.0.1@example.org", "0x7f.1"])
def test_what_is_no_address_is_not_asked(ip: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        address_of(ip)


def test_addresses_of_both_families_are_asked() -> None:
    assert address_of("10.1.2.3") == "http://10.1.2.3:8081/progress"
    assert address_of("fd00::7") == "http://[fd00::7]:8081/progress"


def hostile(seed: int) -> bytes:
    """A reply that is random, or wrong in one of the ways in which replies can be."""
    draw = random.Random(seed)
    noise = draw.randbytes(draw.randrange(400))
    body = draw.choice([
        noise, b"[" * 5000, b'{"a":' * 3000, b"null", b"[]", b'"x"', b"1e999", b"\xff\xfe", json.dumps({"step": 2**70}).encode(),
        GOOD.model_dump_json().encode()[: draw.randrange(80)], GOOD.model_dump_json().encode() + noise,
        json.dumps({"updatedAt": draw.choice(["", "now", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", 1e308, -1])}).encode(),
    ])  # fmt: skip
    return draw.choice([
        noise, b"", b"HTTP/1.1 200 OK\r\n" + noise + b"\r\n\r\n" + body, http(body), http(body, f"X: {'y' * draw.choice([5, 20_000])}"),
        http(body, "Location: http://169.254.169.254/", status_line=f"{draw.choice([100, 101, 204, 302, 418, 500, 999])} {noise[:20].hex()}"),
        http(body, "Transfer-Encoding: chunked"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + noise,
        http(body, f"Content-Encoding: {draw.choice(['gzip', 'br', 'zstd', 'deflate', 'none'])}"),
        http(body).replace(b"Content-Length: ", b"Content-Length: -"), http(body, "Set-Cookie: " + noise.hex()), http(body)[: draw.randrange(60)],
        b"\x16\x03\x01" + noise, b"HTTP/9.9 200 OK\r\n\r\n" + body, b"SSH-2.0-x\r\n\r\n",
    ])  # fmt: skip


def test_random_and_hostile_replies_leave_the_reader_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapter_operator.observe.progress.LONGEST_PAUSE_SECONDS", 0.0)
    told: list[int] = []

    async def run() -> None:
        async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.append(1)
            writer.write(hostile(len(told)) if len(told) <= COUNT else http(GOOD.model_dump_json().encode()))

        async with agent(reply) as address, new_session() as session:
            monkeypatch.setattr("adapter_operator.observe.progress.address_of", lambda _: address)
            cache, news = Cache(), asyncio.Event()
            cache.put_job({**raw_job(1), "status": {"attempt": 1, "state": "Running"}})
            cache.put_pod(raw_pod(podIP="10.0.0.1"))
            reader = ProgressReader(cache, Settings(), lambda _: news.set(), lambda: NOW)
            for _ in range(COUNT + 1):
                await reader._ask(session, KEY)
            # Some replies count for several tries of the client's own; the last is the good one.
            while cache.observed(KEY).progress is None or len(told) <= COUNT:
                await reader._ask(session, KEY)
            assert cache.observed(KEY).progress is not None
            assert cache.observed(KEY).unreachable is None
            assert news.is_set()

    asyncio.run(run())
    assert len(told) > COUNT


def test_what_an_agent_says_is_shown_without_what_acts_on_a_terminal() -> None:
    said = {
        "upload_error": "\x1b[31mno\x07",
        "checkpoint": {"step": 1, "uri": "s3://b/\x1b[2J", "committed_at": NOW, "bytes": 1},
    }
    shown = readable(Progress.model_validate({"updated_at": NOW, **said}))
    assert shown.upload_error == "\\x1b[31mno\\x07"
    assert shown.checkpoint is not None
    assert shown.checkpoint.uri == "s3://b/\\x1b[2J"


NUMBERS = st.integers(0, 2**53 - 1)
REALS = st.floats(0, 1e30)
TIMES = st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-12:00", NOW.isoformat()])
TEXTS = st.text(max_size=2048)


@given(st.fixed_dictionaries({"updatedAt": TIMES}, optional={
    "step": NUMBERS, "totalSteps": NUMBERS, "etaSeconds": NUMBERS, "loss": st.floats(-1e30, 1e30), "imagesPerSecond": REALS,
    "saveSeconds": REALS, "commitSeconds": REALS, "resumedStep": NUMBERS, "uploadError": TEXTS, "restoreWarning": TEXTS,
    "metrics": st.dictionaries(st.sampled_from(["a", "b.c"]), REALS, max_size=2),
    "checkpoint": st.fixed_dictionaries({"step": NUMBERS, "uri": TEXTS, "committedAt": TIMES, "bytes": NUMBERS}),
}))  # fmt: skip
def test_every_progress_that_is_accepted_can_be_shown(said: dict[str, Any]) -> None:
    progress = readable(Progress.model_validate(said))
    seen = observed(pod(0), pod(1), progress=progress, advanced_at=NOW, answered_at=NOW)
    for stands in (
        status(),
        status(interruptions=[{"attempt": 1, "reason": "a", "at": NOW}]),
        status("Restarting", attempt=2),
    ):
        given_job = job(status=stands)
        decision = decide(given_job, seen, after(60))
        shown = job_status.status(given_job, seen, decision, after(60))
        shown.model_dump_json(by_alias=True)
