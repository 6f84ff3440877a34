"""The only calls to the Kubernetes API: objects go in and come out as plain data."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import kube_config

from adapter_api.job import GROUP, PLURAL, VERSION
from adapter_api.names import JOB_LABEL
from adapter_operator import metrics
from adapter_operator.clock import ServerClock
from adapter_operator.names import OURS, Key
from adapter_operator.token_bucket import TokenBucket

Plain = dict[str, Any]

TIMEOUT_SECONDS = 30
CONNECTIONS = 32
WATCH_SECONDS = 300
"""After which the server ends a watch, so that the next one starts with fresh credentials."""
REFUSED_PODS = "FailedCreate"
"""The Job controller's reason for pods that the API server does not let it create."""
PAGE = 200
PAGE_BYTES = 8 * 2**20
"""Of a list's page: what is longer is asked for again in smaller pages. Read, it may be twenty times as large in memory."""
FIELD_MANAGER = "adapter-training-operator"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_PATHS = {
    "Service": ("api/v1", "services"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Pod": ("api/v1", "pods"),
    "Event": ("apis/events.k8s.io/v1", "events"),
    "Job": ("apis/batch/v1", "jobs"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
    "Lease": ("apis/coordination.k8s.io/v1", "leases"),
    "AdapterTrainingJob": (f"apis/{GROUP}/{VERSION}", PLURAL),
}


class ClusterError(Exception):
    """The API server did not do what was asked, or could not be reached (code 0)."""

    def __init__(self, code: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        """Seconds, if the server said so."""

    @property
    def is_not_found(self) -> bool:
        """404."""
        return self.code == 404

    @property
    def is_conflict(self) -> bool:
        """409: it exists already, or has changed meanwhile."""
        return self.code == 409

    @property
    def is_expired(self) -> bool:
        """410: the server does not remember what happened since that version."""
        return self.code == 410


class _LongAnswerError(Exception):
    """An answer that is not read to its end."""


class Cluster:
    """One API server. Every method raises ClusterError."""

    def __init__(self, client: ApiClient, per_second: float, burst: int, watch_silence: float) -> None:
        self._client = client
        self._opened: aiohttp.ClientSession | None = None
        self._lent: aiohttp.ClientSession | None = None
        self._silence = watch_silence
        self._bucket = TokenBucket(per_second, burst)
        self.clock = ServerClock()
        """Set by every answer."""

    @classmethod
    async def connect(cls, per_second: float, burst: int, watch_silence: float) -> Self:
        """The cluster that this pod runs in, or that the kubeconfig names.

        Args:
            per_second: Requests, on average.
            burst: Requests at once.
            watch_silence: Seconds after which a watch that says nothing is taken for dead.

        Raises:
            ClusterError: there is neither, or it cannot be read.
        """
        configuration = Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            await _load_kubeconfig(configuration)
        configuration.retries = False
        return cls(ApiClient(configuration), per_second, burst, watch_silence)

    async def close(self) -> None:
        """Ends all connections."""
        for session in (self._opened, self._lent):
            if session is not None:
                await session.close()
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: str, key: Key) -> Plain:
        """One object."""
        return await self._json("GET", kind, _path(kind, *key))

    async def create(self, manifest: Plain) -> Plain:
        """Creates an object; a conflict means that there is one of that name."""
        kind, namespace = manifest["kind"], manifest["metadata"]["namespace"]
        # What the API server does not know it would otherwise drop in silence.
        options = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self._json("POST", kind, _path(kind, namespace), manifest, options)

    async def replace(self, manifest: Plain) -> Plain:
        """Replaces an object; a conflict means that it is not the one that was read."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        return await self._json("PUT", kind, _path(kind, metadata["namespace"], metadata["name"]), manifest)

    async def apply_status(self, manifest: Plain) -> Plain:
        """Server-side apply of a status; a resourceVersion in it makes a conflict of every change in between."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        path = _path(kind, metadata["namespace"], metadata["name"]) + "/status"
        options = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._json("PATCH", kind, path, manifest, options, _APPLY)

    async def annotate(self, kind: str, key: Key, uid: str, annotations: Mapping[str, str]) -> None:
        """Sets annotations of one object; a conflict means that there is another one of its name."""
        change = {"metadata": {"uid": uid, "annotations": dict(annotations)}}
        options = {"fieldManager": FIELD_MANAGER}
        await self._json("PATCH", kind, _path(kind, *key), change, options, _MERGE)

    async def delete(self, kind: str, key: Key, uid: str | None = None) -> None:
        """Deletes an object, and what it owns in the background. One that is not there is deleted already."""
        body: Plain = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._json("DELETE", kind, _path(kind, *key), body)
        except ClusterError as error:
            if not error.is_not_found and not (error.is_conflict and uid is not None):
                raise

    async def delete_pods(self, namespace: str, selector: str) -> None:
        """Deletes pods by labels, each with its grace period."""
        await self._json("DELETE", "Pod", _path("Pod", namespace), {}, {"labelSelector": selector})

    async def pages(self, kind: str, namespace: str, selector: str = OURS) -> AsyncIterator[tuple[list[Plain], str]]:
        """All objects with these labels, some hundred at a time, and the resourceVersion that they are of.

        Fewer at a time where they are large: whoever may create jobs decides how large they are.
        `namespace` empty: of the whole cluster.
        """
        continues, count = "", PAGE
        while True:
            options = {"limit": str(count), "labelSelector": selector, "continue": continues}
            path = f"{_path(kind, namespace)}?{urlencode({k: v for k, v in options.items() if v})}"
            try:
                raw = await self._send("GET", kind, path, None, "", most=PAGE_BYTES if count > 1 else None)
            except _LongAnswerError:
                count = max(count // 4, 1)
                continue
            answer = _read(raw, f"GET {path.partition('?')[0]}")
            count = min(2 * count, PAGE) if len(raw) < PAGE_BYTES // 4 else count
            yield answer.get("items") or [], answer["metadata"]["resourceVersion"]
            continues = answer["metadata"].get("continue", "")
            if not continues:
                return

    async def probe(self, kind: str, namespace: str) -> None:
        """Returns if objects of this kind can be listed, and are found by those who look for what there is."""
        await self._json("GET", kind, _path(kind, namespace), options={"limit": "1"})
        group, plural = _PATHS[kind]
        for path, member in (("apis", "groups"), (group, "resources")):
            shown = (await self._json("GET", kind, path)).get(member) or []
            if not any(each.get("name") in {group.split("/")[1], plural} for each in shown):
                raise ClusterError(404, f"GET {path}: the API server serves {plural}, but does not say so yet")

    async def pods_of(self, key: Key) -> list[Plain]:
        """All pods of one job, as they are now."""
        selector = f"{JOB_LABEL}={key[1]}"
        return [pod async for page, _ in self.pages("Pod", key[0], selector) for pod in page]

    async def refusal_of_pods(self, namespace: str, uid: str) -> str | None:
        """Why the Job controller cannot create the pods of a Job, by its last Event; None if it says nothing."""
        selector = f"involvedObject.uid={uid},reason={REFUSED_PODS}"
        path = f"api/v1/namespaces/{namespace}/events"
        answer = await self._json("GET", "Event", path, options={"fieldSelector": selector, "limit": str(PAGE)})
        found = [event for event in answer.get("items") or () if event.get("message")]
        last = max(
            found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), default=None
        )
        return None if last is None else str(last["message"])

    async def changes(self, kind: str, namespace: str, selector: str, version: str) -> AsyncIterator[Plain]:
        """Events after a resourceVersion, bookmarks among them, until the server ends the watch.

        Raises:
            ClusterError: it broke, or it can't begin there (410: list anew).
        """
        options = {
            "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": version, "labelSelector": selector,
        }  # fmt: skip
        path = f"{_path(kind, namespace)}?{urlencode({k: v for k, v in options.items() if v})}"
        limit = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_SECONDS, sock_read=self._silence)
        async with self._answer("WATCH", kind, path, None, "", limit) as response:
            begun = b""
            async for chunk in response.content.iter_any():
                *lines, begun = (begun + chunk).split(b"\n")
                for line in lines:
                    event = _read(line, f"watch of {kind}")
                    if event["type"] == "ERROR":
                        told = event["object"]
                        raise ClusterError(int(told.get("code", 0)), f"watch of {kind}: {told.get('message')}")
                    yield event

    async def log_tail(self, key: Key, container: str, lines: int, limit: int) -> str:
        """The last lines that a container wrote, at most `limit` characters of them."""
        query = urlencode({"container": container, "tailLines": lines})
        path = f"{_path('Pod', *key)}/log?{query}"
        raw = await self._send("GET", "Pod", path, None, "")
        return raw.decode("utf-8", "replace")[-limit:]

    async def _json(
        self, verb: str, kind: str, path: str, body: Plain | None = None, options: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Plain:  # fmt: skip
        if options:
            path += "?" + urlencode(options)
        raw = await self._send(verb, kind, path, None if body is None else orjson.dumps(body), content_type)
        return _read(raw, f"{verb} {path.partition('?')[0]}")

    async def _send(
        self, verb: str, kind: str, path: str, body: bytes | None, content_type: str, most: int | None = None
    ) -> bytes:
        """The bytes of an answer.

        Raises:
            _LongAnswerError: There are more than `most` of them.
        """
        await self._bucket.take()
        limit = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with self._answer(verb, kind, path, body, content_type, limit) as response:
            if most is None:
                return await response.read()
            found = bytearray()
            async for chunk in response.content.iter_any():
                found += chunk
                if len(found) > most:
                    raise _LongAnswerError
            return bytes(found)

    @contextlib.asynccontextmanager
    async def _answer(
        self, verb: str, kind: str, path: str, body: bytes | None, content_type: str, limit: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is not a refusal; what fails while it is read is a ClusterError, too."""
        metrics.requests.labels(verb, kind).inc()
        try:
            session, headers = await self._session_and_headers(content_type)
            url = f"{self._client.configuration.host}/{path}"
            sent = "GET" if verb == "WATCH" else verb
            async with session.request(sent, url, data=body, headers=headers, timeout=limit) as response:
                self.clock.hear(response.headers.get("Date"))
                if response.status >= 300:
                    after = response.headers.get("Retry-After")
                    raise _refused(verb, path, response.status, await response.read(), after)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterError(0, f"{verb} {path}: {str(error) or type(error).__name__}") from error

    async def open_session(self) -> tuple[str, aiohttp.ClientSession]:
        """The server's address, and a session with the credentials of now; whoever asked for it closes it.

        The next call and `close` close the one before, in case that nobody has.
        """
        headers = await self._headers()
        if self._lent is not None:
            await self._lent.close()
        counted = [metrics.counted()]
        self._lent = aiohttp.ClientSession(connector=self._connector(), headers=headers, trace_configs=counted)
        return str(self._client.configuration.host), self._lent

    async def _session_and_headers(self, content_type: str) -> tuple[aiohttp.ClientSession, dict[str, str]]:
        """A session with TLS as the client library has configured it, and credentials that it keeps fresh.

        Not the library's own session: that one reads ~/.netrc, in a thread, before each request.
        """
        if self._opened is None:
            counted = [metrics.counted()]
            self._opened = aiohttp.ClientSession(connector=self._connector(), read_bufsize=2**20, trace_configs=counted)
        headers = {**await self._headers(), "User-Agent": FIELD_MANAGER}
        if content_type:
            headers["Content-Type"] = content_type
        return self._opened, headers

    def _connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self._client.rest_client.ssl_context)

    async def _headers(self) -> dict[str, str]:
        # Compressed lists would cost both sides more than the bytes do.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        for setting in (await self._client.configuration.auth_settings()).values():
            headers[setting["key"]] = setting["value"]
        return headers


async def _load_kubeconfig(configuration: Configuration) -> None:
    try:
        await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except Exception as error:  # its file may hold anything, and name programs that fail in any way
        file = kube_config.KUBE_CONFIG_DEFAULT_LOCATION
        said = " ".join(str(error).split()) or type(error).__name__
        advice = "run in a pod with a service account's token, or let KUBECONFIG name a file that kubectl can use"
        raise ClusterError(0, f"cannot read the kubeconfig {file}: {said}; {advice}") from error


def _read(raw: bytes, what: str) -> Plain:
    """An object in an answer. What is deeper than the fast reader goes is for the slow one."""
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ClusterError(0, f"{what}: the answer cannot be read: {error}") from error
    if not isinstance(answer, dict):
        raise ClusterError(0, f"{what}: the answer is not an object")
    return answer


def _path(kind: str, namespace: str, name: str = "") -> str:
    group, plural = _PATHS[kind]
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"{group}{inside}/{plural}" + (f"/{name}" if name else "")


def _refused(verb: str, path: str, code: int, raw: bytes, retry_after: str | None) -> ClusterError:
    try:
        said = str(orjson.loads(raw).get("message", ""))
    except (ValueError, AttributeError):
        said = raw.decode("utf-8", "replace")
    after = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    return ClusterError(code, f"{verb} {path.partition('?')[0]}: {code} {said[:500]}", after)
