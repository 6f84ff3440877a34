"""The probe: what a store really does is found out before a run relies on it, and said with what to do."""

import time
from typing import Any

import pytest

from adapter_agent.checkpoints import probe
from adapter_agent.checkpoints.probe import Findings
from adapter_agent.errors import ConditionalWritesIgnored, Fenced, Unsupported
from adapter_agent.storage.store import Store, checksum
from adapter_api.progress import ExitCode
from tests.agent.support.faulty_proxy import Proxy, Request
from tests.agent.support.node import Claims, MakeNode

REMEDY = r".*output\.s3\.conditionalWrites: false"


def is_racer(request: Request) -> bool:
    return request.method == "PUT" and "if-none-match" in request.headers and "probe-1-" in request.key


def ignoring(store: Store, operation: str, parameter: str, value: str | None = None) -> Store:
    """The store as it would be if it took no notice of a parameter, or of one value of it."""

    def remove(params: dict[str, Any], **_: object) -> None:
        if value in (None, params.get(parameter)):
            params.pop(parameter, None)

    store.client.meta.events.register(f"before-parameter-build.s3.{operation}", remove)
    return store


def test_a_store_that_honours_conditions_is_accepted_in_few_requests_and_nothing_stays(
    store: Store, proxy: Proxy, through: Store
) -> None:
    began = time.monotonic()
    assert probe.probe(through, 1) == Findings(checksums_ignored=False)
    assert time.monotonic() - began < 10
    assert len(proxy.log) <= 100
    assert not list(store.list())
    assert not store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.full_key("")).get("Uploads")


def test_a_store_that_lets_several_creations_win_is_refused(proxy: Proxy, through: Store) -> None:
    proxy.rule = lambda request: (
        "accept" if request.headers.get("if-none-match") == "*" and is_racer(request) else "pass"
    )
    with pytest.raises(ConditionalWritesIgnored, match=r"8 of 8 racing creations" + REMEDY):
        probe.probe(through, 1)


def test_a_store_is_refused_that_passes_seven_races_by_luck(proxy: Proxy, through: Store) -> None:
    """It looks first and writes then: who looks late enough loses."""
    proxy.rule = lambda request: "accept" if is_racer(request) and request.key.endswith("-7") else "pass"
    with pytest.raises(ConditionalWritesIgnored, match="8 of 8 racing creations"):
        probe.probe(through, 1)


def test_a_race_is_sent_at_one_moment(proxy: Proxy, through: Store) -> None:
    times: dict[str, list[float]] = {}

    def note(request: Request) -> str:
        if is_racer(request):
            times.setdefault(request.key, []).append(time.monotonic())
        return "pass"

    proxy.rule = note
    probe.probe(through, 1)
    spans = sorted(max(each) - min(each) for each in times.values())
    assert len(spans) == 8
    assert spans[len(spans) // 2] < 0.5


@pytest.mark.parametrize(
    ("operation", "condition", "fault"),
    [
        ("PutObject", "IfMatch", "If-Match is ignored"),
        ("CompleteMultipartUpload", "IfNoneMatch", "CompleteMultipartUpload ignores If-None-Match"),
        ("CompleteMultipartUpload", "IfMatch", "CompleteMultipartUpload ignores If-Match"),
    ],
)
def test_a_condition_that_is_ignored_is_named(store: Store, operation: str, condition: str, fault: str) -> None:
    with pytest.raises(ConditionalWritesIgnored, match=fault + REMEDY):
        probe.probe(ignoring(store, operation, condition), 1)


@pytest.mark.parametrize("body", [b"matched\n", b"<CompleteMultipartUpload"])
def test_a_store_that_refuses_the_right_etag_is_refused(proxy: Proxy, through: Store, body: bytes) -> None:
    """As Ceph radosgw 16.2 does, which wants it without its quotes: no commit would ever succeed there."""
    counted: list[Request] = []

    def rule(request: Request) -> str:
        if request.body.startswith(body):
            counted.append(request)
            return "changed" if body == b"matched\n" or len(counted) == 3 else "pass"
        return "pass"

    proxy.rule = rule
    with pytest.raises(ConditionalWritesIgnored, match="with the right ETag" + REMEDY):
        probe.probe(through, 1)


@pytest.mark.parametrize(
    ("verdict", "refused", "remedy"),
    [
        ("not_implemented", "x-amz-checksum-sha256", "checksums: MD5"),
        ("unsupported_header", "x-amz-checksum-sha256", "checksums: MD5"),
        ("not_implemented", "if-none-match", "conditionalWrites: false"),
        ("not_implemented", "if-match", "conditionalWrites: false"),
        ("unsupported_header", "if-match", "conditionalWrites: false"),
    ],
)
def test_what_a_store_does_not_know_is_said_with_the_field_that_helps(
    proxy: Proxy, through: Store, verdict: str, refused: str, remedy: str
) -> None:
    proxy.rule = lambda request: verdict if refused in request.headers else "pass"
    with pytest.raises(Unsupported, match=rf"without a (checksum|condition) the store takes the same: set .*{remedy}"):
        probe.probe(through, 1)


def test_a_store_that_takes_wrong_checksums_is_told_apart(store: Store) -> None:
    assert probe.probe(ignoring(store, "PutObject", "ChecksumSHA256", checksum(b"y")), 1).checksums_ignored


def test_a_refused_output_is_as_it_was_before(make_node: MakeNode, proxy: Proxy, store: Store) -> None:
    node = make_node(endpoint_url=proxy.url)
    proxy.rule = lambda request: "accept" if is_racer(request) and request.key.endswith("-7") else "pass"
    code, message = node.restore()
    assert code == ExitCode.INVALID
    assert "racing creations" in message
    proxy.rule = lambda _: "pass"
    assert not list(store.list())
    assert make_node(work="again").restore("--no-conditional-writes")[0] == 0


def test_races_whose_winners_lose_their_replies_pass(proxy: Proxy, through: Store) -> None:
    lost: set[str] = set()

    def lose_the_winner(request: Request) -> str:
        if is_racer(request) and request.key not in lost and len(lost) < 8:
            lost.add(request.key)
            return "lose"
        return "pass"

    proxy.rule = lose_the_winner
    probe.probe(through, 1)
    assert len(lost) == 8


def test_a_creation_that_is_overwritten_later_has_not_won(proxy: Proxy, through: Store, store: Store) -> None:
    """By a racer that nobody waits for any more."""

    def overwrite(request: Request) -> None:
        if is_racer(request) and request.key.endswith("-3"):
            store.put(request.key.removeprefix(store.full_key("")), b"another\n")

    proxy.after = overwrite
    with pytest.raises(ConditionalWritesIgnored, match="2 of 8 racing creations"):
        probe.probe(through, 1)


def test_an_attempt_whose_probe_is_swept_away_learns_that_it_is_fenced(
    proxy: Proxy, through: Store, store: Store, claimed: Claims
) -> None:
    def sweep_it_before_it_is_replaced(request: Request) -> str:
        if request.body == b"replaced\n":
            claimed(store, 2)
            store.delete(request.key.removeprefix(store.full_key("")))
        return "pass"

    proxy.rule = sweep_it_before_it_is_replaced
    probe.probe(through, 1)
    with pytest.raises(Fenced, match="belongs to attempt 2; attempt 1 stops"):
        claimed(through, 1)
