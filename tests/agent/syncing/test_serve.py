"""/progress and /metrics, pictures and logs."""

import http.client
import os
import resource
import socket
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapter_agent import local_files
from adapter_agent.errors import StorageError
from adapter_agent.storage import transfer
from adapter_agent.storage.store import Store
from adapter_agent.syncing import extras as extras_module
from adapter_agent.syncing import serve
from adapter_agent.syncing.extras import Extras
from adapter_agent.syncing.report import Report
from adapter_agent.syncing.serve import serving
from adapter_api.checkpoint import IndexEntry
from adapter_api.layout import PROGRESS_FILE
from adapter_api.progress import MAX_PROGRESS_BYTES, Progress
from tests.support.waiting import wait_until

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path, "s3://bucket/run")


def fetch(url: str, page: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)) as connection:
        connection.request("GET", page)
        reply = connection.getresponse()
        return reply.status, reply.read()


def entry(step: int) -> IndexEntry:
    return IndexEntry(step=step, attempt=1, manifest_sha256="0" * 64, committed_at=NOW, bytes=5)


def test_progress_is_the_trainers_completed_by_commits_and_errors(report: Report, tmp_path: Path) -> None:
    written = Progress(phase="training", step=7, total_steps=20, loss=0.5, updated_at=NOW)
    (tmp_path / PROGRESS_FILE).write_text(written.model_dump_json())
    report.committed(entry(5))
    report.failed("the endpoint cannot be reached " + "x" * 5000)
    with serving("127.0.0.1", 0, report) as url:
        status, body = fetch(url, "/progress")
        served = Progress.model_validate_json(body)
        assert (status, served.step, served.loss) == (200, 7, 0.5)
        assert served.checkpoint is not None
        assert (served.checkpoint.step, served.checkpoint.uri) == (5, "s3://bucket/run/checkpoint-5")
        assert served.upload_error is not None
        assert len(body) <= MAX_PROGRESS_BYTES
        report.recovered()
        assert Progress.model_validate_json(fetch(url, "/progress")[1]).upload_error is None
        assert fetch(url, "/")[0] == 404


@pytest.mark.parametrize("broken", [b"", b"{", b'{"step": -1}', b"x" * 2 * MAX_PROGRESS_BYTES])
def test_unreadable_progress_leaves_the_last_one_in_place(report: Report, tmp_path: Path, broken: bytes) -> None:
    (tmp_path / PROGRESS_FILE).write_text(Progress(step=7, updated_at=NOW).model_dump_json())
    assert report.progress().step == 7
    (tmp_path / PROGRESS_FILE).write_bytes(broken)
    assert report.progress().step == 7


def test_metrics_are_prometheus_text(report: Report, tmp_path: Path) -> None:
    written = Progress(step=7, loss=0.5, images_per_second=12.5, updated_at=NOW)
    (tmp_path / PROGRESS_FILE).write_text(written.model_dump_json())
    report.sent(100)
    report.committed(entry(5))
    report.failed("no")
    with report.upload_seconds.time():
        pass
    with serving("127.0.0.1", 0, report) as url:
        lines = fetch(url, "/metrics")[1].decode().splitlines()
    for line in (
        "adapter_training_step 7.0",
        "adapter_training_loss 0.5",
        "adapter_training_images_per_second 12.5",
        "adapter_training_uploaded_bytes_total 100.0",
        "adapter_training_commits_total 1.0",
        "adapter_training_upload_failures_total 1.0",
        f"adapter_training_last_commit_timestamp_seconds {NOW.timestamp():.9g}".replace("e+0", "e+0"),
        "adapter_training_upload_seconds_count 1.0",
    ):
        name, value = line.rsplit(" ", 1)
        assert any(seen.startswith(f"{name} ") and float(seen.split()[-1]) == float(value) for seen in lines), line


def test_slow_clients_are_cut_off_and_do_not_keep_others_from_an_answer(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "REQUEST_SECONDS", 3.0)

    def ended(client: socket.socket) -> bool:
        """Although it goes on sending, a byte at a time."""
        with suppress(OSError):
            client.sendall(b"G")
        try:
            return client.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    with serving("127.0.0.1", 0, report) as url:
        place = ("127.0.0.1", int(url.rpartition(":")[2]))
        slow = [socket.create_connection(place, timeout=10) for _ in range(serve.MAX_CLIENTS + 20)]
        for client in slow:
            client.setblocking(False)
        wait_until("the last is turned away", lambda: ended(slow[-1]))

        turned_away = [client for client in slow if ended(client)]
        wait_until("all are cut off", lambda: all(ended(client) for client in slow))
        assert fetch(url, "/progress")[0] == 200
        assert len(turned_away) < len(slow)
        for client in slow:
            client.close()


def test_transfers_go_on_beyond_a_thousand_descriptors(store: Store, tmp_path: Path) -> None:
    """Which `select` does not know."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    path = tmp_path / "file"
    path.write_bytes(b"content")
    held = [os.open(path, os.O_RDONLY) for _ in range(1100)]
    try:
        for key in ("a", "b"):  # the second time on the connection of the first
            transfer.send(store, key, path, local_files.facts_of(path), {}, transfer.Condition())
        assert store.get("b")[0] == b"content"
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_long_log_is_not_sent_whole_after_each_commit(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras_module, "SHORT_LOG_BYTES", 1000)
    sent: list[int] = []
    extras = Extras(store, tmp_path, 1, 0, sent.append)
    log = tmp_path / "metrics.jsonl"
    for _ in range(200):
        with log.open("ab") as stream:
            stream.write(b"x" * 99 + b"\n")
        extras.send_logs(last=False)
    size = log.stat().st_size
    assert sum(sent) < 6 * size, "whole each time, it would be a hundred times its size"
    extras.send_logs()
    assert store.get("logs/attempt-1/node-0/metrics.jsonl")[0] == log.read_bytes()


def test_a_port_that_is_taken_is_named(report: Report) -> None:
    with serving("127.0.0.1", 0, report) as url:
        port = int(url.rpartition(":")[2])
        with (
            pytest.raises(StorageError, match=rf"--listen=127\.0\.0\.1:{port}: .*choose another port"),
            serving("127.0.0.1", port, report),
        ):
            pass


def test_pictures_of_another_attempt_stay_and_logs_follow(store: Store, tmp_path: Path) -> None:
    for attempt, picture in ((1, b"first"), (2, b"second")):
        output = tmp_path / f"output-{attempt}"
        (output / "samples").mkdir(parents=True)
        (output / "logs/run").mkdir(parents=True)
        (output / "samples/step-10.png").write_bytes(picture)
        (output / "samples/step-5.png").write_bytes(b"the same")
        (output / "logs/run/events").write_bytes(b"1")
        (output / "metrics.jsonl").write_bytes(b"{}\n")
        extras = Extras(store, output, attempt, 0, lambda _: None)
        extras.send_samples(settled=True)
        extras.send_logs()
        (output / "metrics.jsonl").write_bytes(b"{}\n{}\n")
        extras.send_logs()
    assert {facts.key: store.get(facts.key)[0] for facts in store.list()} == {
        "samples/step-10.png": b"first",
        "samples/step-10-attempt-2.png": b"second",
        "samples/step-5.png": b"the same",
        "logs/attempt-1/node-0/run/events": b"1",
        "logs/attempt-1/node-0/metrics.jsonl": b"{}\n{}\n",
        "logs/attempt-2/node-0/run/events": b"1",
        "logs/attempt-2/node-0/metrics.jsonl": b"{}\n{}\n",
    }


def test_a_picture_that_still_grows_is_not_sent_yet(store: Store, tmp_path: Path) -> None:
    picture = tmp_path / "samples/step-1.png"
    picture.parent.mkdir()
    extras = Extras(store, tmp_path, 1, 0, lambda _: None)
    picture.write_bytes(b"half")
    extras.send_samples()
    picture.write_bytes(b"whole picture")
    extras.send_samples()
    assert not list(store.list())
    extras.send_samples()
    assert store.get("samples/step-1.png")[0] == b"whole picture"
