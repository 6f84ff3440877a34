"""Every server lives through the same: two checkpoints, a kill, another attempt; or says what it lacks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.support.seaweed import BUCKET, KEY, SECRET
from tests.agent.support.servers import ALL, COMPILED
from tests.stores.support.life import live

CONDITIONAL = {"seaweedfs", "versitygw"}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.cluster if name in COMPILED else pytest.mark.process) for name in ALL],
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    started = ALL[request.param](tmp_path_factory.mktemp("server"))
    try:
        started.start()
        yield request.param, started.url
    finally:
        started.kill()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.parametrize("conditional", [True, False], ids=["with conditions", "without conditions"])
def test_a_checkpoint_lives_through_a_kill(server: tuple[str, str], tmp_path: Path, *, conditional: bool) -> None:
    name, url = server
    result = live(tmp_path, url, f"s3://{BUCKET}/life-{conditional}".lower(), conditional=conditional)
    if conditional and name not in CONDITIONAL:
        assert "conditionalWrites: false" in result.refused
    else:
        assert result.is_whole, result
