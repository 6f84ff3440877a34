"""The API server stand-in's HTTP: paths, lists in pages, watches, logs of pods; answers are JSON as Kubernetes gives it."""

import asyncio
import json
import re
import secrets
from typing import Any

import orjson
from aiohttp import web

from tests.operator.support.stand_in import discovery, events, refusals
from tests.operator.support.stand_in.refusals import Refusal
from tests.operator.support.stand_in.resources import (
    BUILT_IN,
    DEFINITIONS,
    EVENTS,
    NAMESPACES,
    NEW_EVENTS,
    PODS,
    Resource,
)
from tests.operator.support.stand_in.selectors import Selects, selects
from tests.operator.support.stand_in.store import Change, Key
from tests.operator.support.stand_in.verbs import Options, Verbs

Plain = dict[str, Any]

BOOKMARK_SECONDS = 60.0
"""Between two bookmarks, as in Kubernetes."""
_PATH = re.compile(
    r"/(?P<root>api/v1|apis/[^/]+/[^/]+)(/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[^/]+)(/(?P<name>[^/]+)(/(?P<part>[^/]+))?)?"
)
_MERGE, _APPLY = "application/merge-patch+json", "application/apply-patch+yaml"


class Server:
    """Answers requests from one store.

    Args:
        verbs: What it does.
        logs: Text of a container's log, by namespace, pod and container. A pod that has none is on a node that does not answer.
    """

    def __init__(self, verbs: Verbs, logs: dict[tuple[str, str, str], str]) -> None:
        self._verbs, self._store, self._logs = verbs, verbs.store, logs
        self._pages: dict[str, tuple[int, list[Plain]]] = {}
        """What is left of lists that were given in part, with their versions."""

    def app(self) -> web.Application:
        """To be served."""
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except Refusal as error:
            return _json(error.status, error.code)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET" and (shown := self._about_itself(request.path)) is not None:
            return shown
        found = _PATH.fullmatch(request.path)
        resource = found and self._resource(found["root"], found["plural"], found["namespace"])
        if found is None or resource is None:
            return web.Response(status=404, text="404 page not found\n")
        if resource == NEW_EVENTS:
            return await self._event(request, found["namespace"] or "")
        key = Key(resource, found["namespace"] or "", found["name"] or "")
        parts = {None, *(["status"] if resource.has_status else []), *(["log"] if resource == PODS else [])}
        if found["part"] not in parts:
            raise refusals.not_found(resource, key.name)
        if not key.name:
            return await self._collection(request, key)
        if found["part"] == "log":
            return self._log(request, key)
        return await self._object(request, key, found["part"] or "")

    def _resource(self, root: str, plural: str, namespace: str | None) -> Resource | None:
        served = (each for each in self._verbs.served() if (each.root, each.plural) == (root, plural))
        return next((each for each in served if each.is_namespaced or namespace is None), None)

    def _about_itself(self, path: str) -> web.Response | None:
        """Whether it is well, and what it serves."""
        if path in {"/readyz", "/healthz", "/livez"}:
            return web.Response(text="ok")
        shown = discovery.answer(path, self._verbs.served(), self._store.of(DEFINITIONS))
        return None if shown is None else _json(shown)

    async def _event(self, request: web.Request, namespace: str) -> web.Response:
        if request.method != "POST":
            raise Refusal(405, "MethodNotAllowed", "the stand-in takes new Events by events.k8s.io/v1, and shows none")
        stored = events.as_core(await _body(request))
        return _json(events.as_new(self._verbs.create(Key(EVENTS, namespace, ""), stored, _options(request, ""))), 201)

    async def _collection(self, request: web.Request, key: Key) -> web.StreamResponse:
        query = request.query
        chosen = selects(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        if request.method == "POST":
            return _json(self._verbs.create(key, await _body(request), _options(request, "")), 201)
        if request.method == "GET" and query.get("watch", "false") not in {"false", "0"}:
            return await self._watch(request, key, chosen)
        if request.method not in {"GET", "DELETE"}:
            raise Refusal(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        if request.method == "GET":
            return _json(self._list(request, key, chosen))
        asked = await _body(request)
        found = [each for each in self._store.of(key.resource, key.namespace) if chosen(each)]
        items = [
            self._verbs.delete(
                Key(key.resource, each["metadata"].get("namespace", ""), each["metadata"]["name"]), asked
            )
            for each in found
        ]
        return _json(_list_of(key.resource, items, self._store.version))

    async def _object(self, request: web.Request, key: Key, subresource: str) -> web.StreamResponse:
        options = _options(request, subresource)
        match request.method, request.content_type:
            case "GET", _:
                found = self._store.get(key)
                if found is None:
                    raise refusals.not_found(key.resource, key.name)
                return _json(found)
            case "PUT", _:
                return _json(self._verbs.replace(key, await _body(request), options))
            case "PATCH", content if content == _MERGE:
                return _json(self._verbs.patch(key, await _body(request), options))
            case "PATCH", content if content == _APPLY:
                is_new = self._store.get(key) is None
                return _json(self._verbs.apply(key, await _body(request), options), 201 if is_new else 200)
            case "PATCH", _:
                raise Refusal(415, "UnsupportedMediaType", "the stand-in takes merge patches and server-side apply")
            case "DELETE", _:
                return await self._delete(request, key, options)
            case _:
                raise Refusal(
                    405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
                )

    async def _delete(self, request: web.Request, key: Key, options: Options) -> web.Response:
        """Pods and namespaces are answered as they are, all else with what was deleted."""
        asked = await _body(request)
        given = request.query.get("gracePeriodSeconds")
        asked |= {} if given is None else {"gracePeriodSeconds": int(given)}
        asked |= {name: request.query[name] for name in ("propagationPolicy",) if name in request.query}
        found = self._verbs.delete(key, asked, is_dry=options.is_dry)
        if key.resource in {PODS, NAMESPACES} or found["metadata"].get("finalizers"):
            return _json(found)
        details = {
            "name": key.name,
            "group": key.resource.group,
            "kind": key.resource.plural,
            "uid": found["metadata"]["uid"],
        }
        return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})

    def _list(self, request: web.Request, key: Key, chosen: Selects) -> Plain:
        limit, token = int(request.query.get("limit", 0)), request.query.get("continue")
        if token is not None:
            if token not in self._pages:
                raise refusals.expired()
            version, found = self._pages[token]  # a token may be used again
        else:
            version = self._store.version
            found = [each for each in self._store.of(key.resource, key.namespace) if chosen(each)]
        page, rest = (found[:limit], found[limit:]) if limit else (found, [])
        answer = _list_of(key.resource, page, version)
        if rest:
            answer["metadata"] |= {"continue": (token := secrets.token_hex(8)), "remainingItemCount": len(rest)}
            self._pages[token] = (version, rest)
        return answer

    def forget(self) -> None:
        """Forgets what happened so far, and lists that were given in part."""
        self._store.forget()
        self._pages.clear()

    async def _watch(self, request: web.Request, key: Key, chosen: Selects) -> web.StreamResponse:
        query, now = request.query, asyncio.get_running_loop().time
        marked, end = now(), now() + float(query.get("timeoutSeconds", 1800))
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        version = int(query.get("resourceVersion") or 0)
        if version == 0:
            version = self._store.version
            for each in self._store.of(key.resource, key.namespace):
                if chosen(each):
                    await stream.write(_event("ADDED", each))
        changed = asyncio.Event()
        unsubscribe = self._store.tell(changed.set)
        try:
            while True:
                changed.clear()
                changes = self._store.since(version)
                if changes is None:
                    await stream.write(_event("ERROR", refusals.expired().status))
                    return stream
                lines = [line for change in changes if (line := _told(change, key, chosen)) is not None]
                if lines:
                    await stream.write(b"".join(lines))
                version = max(version, changes[-1].version if changes else 0)
                if key.resource not in self._verbs.served():
                    return stream
                if changed.is_set():
                    continue
                try:
                    async with asyncio.timeout(max(0.0, min(marked + BOOKMARK_SECONDS, end) - now())):
                        await changed.wait()
                except TimeoutError:
                    marked = now()
                    if query.get("allowWatchBookmarks", "false") not in {"false", "0"}:
                        await stream.write(_event("BOOKMARK", _bookmark(key.resource, version)))
                    if now() >= end:
                        return stream
        finally:
            unsubscribe()

    def _log(self, request: web.Request, key: Key) -> web.Response:
        pod = self._store.get(key)
        if pod is None:
            raise refusals.not_found(key.resource, key.name)
        container = request.query.get("container") or pod["spec"]["containers"][0]["name"]
        text = self._logs.get((key.namespace, key.name, container))
        if text is None:
            raise Refusal(500, "InternalError", f"Get the log of {key.name}: the node does not answer")
        lines = text.splitlines()
        if "tailLines" in request.query:
            lines = lines[len(lines) - min(len(lines), int(request.query["tailLines"])) :]
        if request.query.get("timestamps") == "true":
            lines = [f"2026-01-01T00:00:{second:02}.000000000Z {line}" for second, line in enumerate(lines)]  # fmt: skip
        return web.Response(text="".join(f"{line}\n" for line in lines))


def _told(change: Change, key: Key, chosen: Selects) -> bytes | None:
    """What a watch of these objects says of a change: nothing, if it is of none of them."""
    if change.key.resource != key.resource or key.namespace not in {"", change.key.namespace}:
        return None
    was, is_now = (each is not None and chosen(each) for each in (change.before, change.after))
    if not was and not is_now:
        return None
    return _event("DELETED" if not is_now else "MODIFIED" if was else "ADDED", change.object)


def _event(kind: str, found: Plain) -> bytes:
    return _written({"type": kind, "object": found}) + b"\n"


def _bookmark(resource: Resource, version: int) -> Plain:
    return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {"resourceVersion": str(version)}}


def _list_of(resource: Resource, items: list[Plain], version: int) -> Plain:
    """Items of built-in kinds do not say what they are: their list does."""
    if resource in BUILT_IN:
        items = [{name: value for name, value in each.items() if name not in {"kind", "apiVersion"}} for each in items]
    return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": {"resourceVersion": str(version)}, "items": items}  # fmt: skip


async def _body(request: web.Request) -> Plain:
    raw = await request.read()
    try:
        found = _read(raw or b"{}")
    except (ValueError, RecursionError) as error:
        raise refusals.bad_request(f"the object provided is unrecognized: {error}") from error
    if not isinstance(found, dict):
        raise refusals.bad_request("the object provided is no object")
    return found


def _options(request: web.Request, subresource: str) -> Options:
    query = request.query
    agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
    return Options(
        manager=query.get("fieldManager", agent), is_dry=query.get("dryRun") == "All",
        is_strict=query.get("fieldValidation") == "Strict", force=query.get("force") == "true", subresource=subresource,
    )  # fmt: skip


def _json(found: Plain, code: int = 200) -> web.Response:
    return web.Response(body=_written(found), status=code, content_type="application/json")


def _written(found: Plain) -> bytes:
    """As JSON; what is deeper than the fast writer goes is for the slow one."""
    try:
        return orjson.dumps(found)
    except TypeError:
        return json.dumps(found).encode()


def _read(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except ValueError:
        return json.loads(raw)
