"""Lists are read in pages that fit into memory, however large the objects are that users have made."""

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import ApiClient, Configuration

from adapter_api.job import KIND
from adapter_operator.cluster import PAGE, PAGE_BYTES, Cluster
from tests.support.repository import REPOSITORY

MIB = 2**20


def padded(name: str, size: int) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": "x" * size}


def listed(objects: list[dict[str, Any]]) -> tuple[list[list[str]], list[int]]:
    """Names by page as the operator gets them, and the limits that it has asked for."""
    limits: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        start, limit = int(request.query.get("continue", "0")), int(request.query["limit"])
        limits.append(limit)
        end = start + limit
        metadata = {"resourceVersion": "7"} | ({"continue": str(end)} if end < len(objects) else {})
        return web.json_response({"metadata": metadata, "items": objects[start:end]})

    async def ask() -> list[list[str]]:
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        async with TestServer(app) as server:
            client = ApiClient(Configuration(host=str(server.make_url("")).rstrip("/")))
            cluster = Cluster(client, 1000.0, 1000, 60.0)
            try:
                return [
                    [each["metadata"]["name"] for each in page] async for page, version in cluster.pages(KIND, "", "")
                    if version == "7"
                ]  # fmt: skip
            finally:
                await cluster.close()

    return asyncio.run(ask()), limits


def test_small_objects_come_some_hundred_at_a_time() -> None:
    pages, limits = listed([padded(f"small-{number}", 1000) for number in range(PAGE + 50)])
    assert [len(page) for page in pages] == [PAGE, 50]
    assert limits == [PAGE, PAGE]


def test_every_object_comes_once_and_no_page_is_longer_than_it_may_be() -> None:
    sizes = [1000] * 300 + [MIB] * 60 + [1000] * 300 + [PAGE_BYTES + 1] * 3
    pages, limits = listed([padded(str(number), size) for number, size in enumerate(sizes)])
    assert [int(name) for page in pages for name in page] == list(range(len(sizes)))
    assert all(sum(sizes[int(name)] for name in page) <= PAGE_BYTES or len(page) == 1 for page in pages)
    assert min(limits) == 1
    assert len(limits) < 60
    assert max(limits[limits.index(min(limits[:20])) :]) > PAGE // 4, "small ones come in large pages again"


LISTING = """
import re
from pathlib import Path
from tests.operator import test_large_lists as here
nested = {"metadata": {"name": "n"}, "spec": [[]] * 330_000}
pages, limits = here.listed([nested] * 30)
assert sum(map(len, pages)) == 30
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
# Not getrusage's peak: a process that has just been forked has its parent's.


@pytest.mark.process
def test_the_worst_objects_fit_into_the_operators_memory() -> None:
    """Empty lists take twenty times their JSON; the server of this test has its share of the process, too."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", LISTING], capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY
    )
    assert int(done.stdout) * 1024 < 512 * MIB
