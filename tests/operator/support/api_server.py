"""The API server as a test asks it, as the user who may do everything: plain data in and out, no process a call."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import urllib3

from tests.operator.support.planes import Plane, address_of

Plain = dict[str, Any]

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
PLURALS = {
    "pods": "api/v1",
    "services": "api/v1",
    "configmaps": "api/v1",
    "events": "api/v1",
    "jobs": "apis/batch/v1",
    "networkpolicies": "apis/networking.k8s.io/v1",
    "leases": "apis/coordination.k8s.io/v1",
    "adaptertrainingjobs": "apis/adaptertraining.dev/v1alpha1",
}


class Refused(Exception):  # noqa: N818 - it reads as the fact that it states
    """The API server answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code


class ApiServer:
    """Calls of one plane."""

    def __init__(self, plane: Plane) -> None:
        self.address = address_of(plane)
        files = {"ca_certs": "ca.crt", "cert_file": "admin.crt", "key_file": "admin.key"}
        secured: dict[str, Any] = {}
        if plane.certificates is not None:
            secured = {name: str(plane.certificates / file) for name, file in files.items()}
        self._pool = urllib3.PoolManager(maxsize=8, retries=False, **secured)

    def call(
        self, method: str, path: str, body: Plain | None = None, *, query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Plain:  # fmt: skip
        """The answer.

        Raises:
            Refused: with the server's code.
        """
        answer = self._pool.request(
            method, self._url(path, query), body=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type}, timeout=30,
        )  # fmt: skip
        if answer.status >= 300:
            raise Refused(answer.status, answer.data.decode(errors="replace")[:2000])
        found: Plain = json.loads(answer.data)
        return found

    def has(self, path: str) -> bool:
        """Whether there is such an object."""
        try:
            self.call("GET", path)
        except Refused as error:
            if error.code != 404:
                raise
            return False
        return True

    def objects(self, plural: str, namespace: str) -> list[Plain]:
        """All objects of a kind in a namespace."""
        found: list[Plain] = self.call("GET", path_of(plural, namespace))["items"]
        return found

    @contextmanager
    def watched(
        self, plural: str, namespace: str, version: str, chosen: Mapping[str, str] | None = None
    ) -> Iterator[Iterator[Plain]]:
        """Events after a version, of what a query chooses, until the server ends the watch or the block is left."""
        query = {"watch": "true", "resourceVersion": version, **(chosen or {})}
        answer = self._pool.request(
            "GET", self._url(path_of(plural, namespace), query), preload_content=False, timeout=None
        )
        try:
            yield (json.loads(line) for line in _lines(answer))
        finally:
            answer.close()

    def _url(self, path: str, query: Mapping[str, str] | None) -> str:
        return f"{self.address}/{path}" + (f"?{urlencode(query)}" if query else "")


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for part in answer.stream(65_536):
        *lines, rest = (rest + part).split(b"\n")
        yield from (line for line in lines if line)


def path_of(plural: str, namespace: str, name: str = "") -> str:
    """Of a collection or an object."""
    return f"{PLURALS[plural]}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")
