"""The rights that the documentation tells to give are enough for a run, and for nothing beside its address."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session

from adapter_agent.storage.store import Store
from tests.agent.support.seaweed import BUCKET, KEY, SECRET
from tests.agent.support.store_process import serving
from tests.agent.support.versity import Versity
from tests.stores.support.life import live
from tests.support.repository import REPOSITORY

pytestmark = pytest.mark.cluster
USER, USERS_SECRET = "trainer", "trainer-secret"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Versity]:
    folder = tmp_path / "server"
    folder.mkdir()
    with serving(Versity(folder)) as started:
        started.add_user(USER, USERS_SECRET)
        yield started


def documented() -> dict[str, Any]:
    text = (REPOSITORY / "docs/checkpoints.md").read_text(encoding="utf-8")
    found = re.search(r"```json\n(\{\n  \"Version\".*?)\n```", text, re.DOTALL)
    assert found is not None
    policy: dict[str, Any] = json.loads(found[1].replace("my-bucket", BUCKET).replace("my/prefix", "life"))
    return {**policy, "Statement": [{**each, "Principal": {"AWS": [USER]}} for each in policy["Statement"]]}


def test_a_run_needs_no_more_than_what_is_documented(
    server: Versity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = Store(f"s3://{BUCKET}/life", Session(KEY, SECRET), server.url, None).client
    policy = documented()
    owner.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", USER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", USERS_SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    result = live(tmp_path / "allowed", server.url, f"s3://{BUCKET}/life/run", conditional=True)
    assert result.is_whole, result
    assert result.checksums == "the store"
    refused = live(tmp_path / "elsewhere", server.url, f"s3://{BUCKET}/other", conditional=True)
    assert "access denied" in refused.refused
