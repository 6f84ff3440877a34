"""The load's own connection to the API server: requests and watches, as a user who may do everything."""

import asyncio
import base64
import contextlib
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson

Plain = dict[str, Any]
OnEvent = Callable[[float, str, Plain], None]
"""Called with the monotonic time of arrival, the event's type, and the object."""

CONNECTIONS = 16
MERGE = "application/merge-patch+json"


class Refused(Exception):  # noqa: N818 - it reads as the fact that it states
    """The API server did not do what was asked."""


class Api:
    """Requests to one API server."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server

    async def send(self, verb: str, path: str, body: Plain | None = None, kind: str = "application/json") -> Plain:
        """One request.

        Raises:
            Refused: with the server's words.
        """
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": kind}
        async with self._session.request(verb, f"{self._server}{path}", data=data, headers=headers) as answer:
            raw = await answer.read()
            if answer.status >= 300:
                raise Refused(f"{verb} {path}: {answer.status} {raw[:300].decode('utf-8', 'replace')}")
            found: Plain = orjson.loads(raw)
            return found

    async def watch(self, path: str, on_event: OnEvent, listed: asyncio.Event) -> None:
        """Lists, sets `listed`, and watches until cancelled; a watch that the server ends goes on where it was.

        Raises:
            Refused: events are lost: what was measured is worth nothing.
        """
        first = await self.send("GET", path)
        now, version = time.monotonic(), first["metadata"]["resourceVersion"]
        for item in first.get("items") or []:
            on_event(now, "ADDED", item)
        listed.set()
        limit = aiohttp.ClientTimeout(total=None)
        while True:
            query = f"watch=1&resourceVersion={version}&timeoutSeconds=3600"
            async with self._session.get(f"{self._server}{path}?{query}", timeout=limit) as answer:
                rest = b""
                async for chunk in answer.content.iter_any():
                    now = time.monotonic()
                    *lines, rest = (rest + chunk).split(b"\n")
                    for event in map(orjson.loads, lines):
                        if event["type"] == "ERROR":
                            raise Refused(f"the watch of {path} ended: {event['object'].get('message')}")
                        version = event["object"]["metadata"]["resourceVersion"]
                        on_event(now, event["type"], event["object"])


@contextlib.asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[Api]:
    """An Api for as long as the context lasts.

    Args:
        kubeconfig: With a client certificate inside, as tests.cluster writes it.
    """
    config = json.loads(await asyncio.to_thread(kubeconfig.read_text, encoding="utf-8"))
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    trust = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with tempfile.NamedTemporaryFile() as both:
        both.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
        both.flush()
        trust.load_cert_chain(both.name)
    # Watches hold connections of their own.
    connector = aiohttp.TCPConnector(limit=CONNECTIONS + 4, ssl=trust)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as session:
        yield Api(session, cluster["server"])
