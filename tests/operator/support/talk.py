"""Calls of one API server, whose answers are to be compared with another one's."""

import json
from collections.abc import Callable
from typing import Any

from tests.operator.support.api_server import APPLY, MERGE, Refused, path_of
from tests.operator.support.on_plane import OnPlane, Plain, quick_job


class Talk:
    """Calls of one API server, in one namespace, each answer as far as it must be the same everywhere."""

    def __init__(self, place: OnPlane) -> None:
        self.place, self.api, self.namespace = place, place.api, place.namespace

    def ask(self, method: str, plural: str, name: str = "", body: Plain | None = None, part: str = "", **options: Any) -> Plain:  # fmt: skip
        """The answer, or what a refusal says, without the parts that nothing compares."""
        try:
            return self.api.call(method, path_of(plural, self.namespace, name) + part, body, **options)
        except Refused as error:
            try:
                told = json.loads(str(error).partition(" ")[2])
            except ValueError:
                return {"refused": error.code}
            return {"refused": error.code, "reason": told.get("reason"), "name": told.get("details", {}).get("name")}

    def job(self, method: str, name: str = "", body: Plain | None = None, part: str = "", **options: Any) -> Plain:
        return self.ask(method, "adaptertrainingjobs", name, body, part, **options)

    def merge(self, name: str, change: Plain, part: str = "") -> Plain:
        return self.job("PATCH", name, change, part, content_type=MERGE)

    def apply_status(self, name: str, status: Plain, manager: str = "one", *, force: bool = True, **metadata: str) -> Plain:  # fmt: skip
        body = {**quick_job(name), "metadata": {"name": name, **metadata}, "status": status}
        del body["spec"]
        options = {"fieldManager": manager, **({"force": "true"} if force else {})}
        return self.job("PATCH", name, body, "/status", query=options, content_type=APPLY)

    def version(self, name: str) -> str:
        found: str = self.job("GET", name)["metadata"]["resourceVersion"]
        return found

    def changes(self, name: str, asked: Callable[[], Plain]) -> tuple[bool, int, Plain]:
        """Whether a call has made a new version of a job, its generation then, and what was refused."""
        before = self.version(name)
        answer = asked()
        after = self.job("GET", name)
        told = answer if "refused" in answer else {}
        return after["metadata"]["resourceVersion"] != before, after["metadata"]["generation"], told
