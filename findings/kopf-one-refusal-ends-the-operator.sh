#!/bin/sh
# kopf 1.45.2: one 401 ends an operator whose credentials are good. kopf logs in anew, and takes no credentials that are equal to ones
# that were refused: a service account's token that has not changed is equal, so that `kopf.operator()` ends with LoginError.
# API servers do answer 401 now and then to a valid token: while they start, or while their own authenticator is away.
# A ConnectionInfo with an `expiration` that differs at each login is not equal, and the operator goes on: its second request
# is answered.
#
# Seen with an API stand-in on the loopback that refuses the first list of objects, and nothing else. This script fails when
# kopf outlives the refusal without an `expiration`, or does not with one.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet kopf==1.45.2 aiohttp==3.14.5
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import datetime
import logging

import kopf
from aiohttp import web

logging.disable(logging.CRITICAL)
KIND = {"name": "widgets", "singularName": "widget", "kind": "Widget", "namespaced": True, "verbs": ["get", "list", "watch"]}
NAMESPACES = {"name": "namespaces", "singularName": "", "kind": "Namespace", "namespaced": False, "verbs": ["get", "list", "watch"]}
VERSION = {"groupVersion": "example.org/v1", "version": "v1"}
GROUP = {"name": "example.org", "versions": [VERSION], "preferredVersion": VERSION}


async def answering(lists):
    """A stand-in of an API server: it knows one kind, and refuses the first list of its objects."""

    async def discovery(request):
        bodies = {
            "/": {}, "/version": {"major": "1", "minor": "34"}, "/api": {"versions": ["v1"]},
            "/api/v1": {"groupVersion": "v1", "resources": [NAMESPACES]}, "/apis": {"groups": [GROUP]},
            "/apis/example.org": GROUP, "/apis/example.org/v1": {"groupVersion": "example.org/v1", "resources": [KIND]},
        }
        return web.json_response(bodies.get(request.path, {}), status=200 if request.path in bodies else 404)

    async def objects(request):
        if "watch" in request.query:
            stream = web.StreamResponse()
            await stream.prepare(request)
            await asyncio.sleep(60)
            return stream
        lists.append(len(lists))
        if len(lists) == 1:
            refusal = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unauthorized", "code": 401}
            return web.json_response(refusal, status=401)
        return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})

    app = web.Application()
    app.router.add_get("/apis/example.org/v1/widgets", objects)
    app.router.add_get("/{path:.*}", discovery)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"


async def life(expires):
    """Lists that were asked for, logins, and how the operator ended within some seconds; None where it did not."""
    lists, logins = [], []
    runner, address = await answering(lists)
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_):
        logins.append(len(logins))
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=5) if expires else None
        return kopf.ConnectionInfo(server=address, token="valid", insecure=True, expiration=end)

    @kopf.on.event("example.org", "v1", "widgets", registry=registry)
    async def seen(**_):
        pass

    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    stop = asyncio.Event()
    task = asyncio.create_task(kopf.operator(registry=registry, settings=settings, clusterwide=True, stop_flag=stop))
    await asyncio.wait([task], timeout=15)
    ended = task.exception() if task.done() else None
    stop.set()
    await asyncio.wait([task], timeout=20)
    await runner.cleanup()
    return len(lists), len(logins), ended


lists, logins, ended = asyncio.run(life(expires=False))
print(f"equal credentials: {lists} list, {logins} logins, ended by {type(ended).__name__}")
assert isinstance(ended, kopf.LoginError), ended
assert (lists, logins) == (1, 2)
lists, logins, ended = asyncio.run(life(expires=True))
print(f"with an expiration: {lists} lists, {logins} logins, {'goes on' if ended is None else type(ended).__name__}")
assert ended is None and (lists, logins) == (2, 2)
PYTHON
