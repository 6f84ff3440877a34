"""Every state that the pods of a namespace went through, as the API server told them: what no look at the end can show."""

import contextlib
import threading
from collections import defaultdict
from typing import Any

import urllib3

from tests.operator.support.api_server import ApiServer, path_of

Plain = dict[str, Any]
JOB, ATTEMPT, INDEX = (
    "adaptertraining.dev/job",
    "adaptertraining.dev/attempt",
    "batch.kubernetes.io/job-completion-index",
)


class PodHistory:
    """Watches from its making until `stop`; a watch that breaks is taken up where it broke."""

    def __init__(self, api: ApiServer, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._live: dict[str, tuple[str, int]] = {}
        """Uid of a pod that has neither ended nor been deleted -> job, attempt."""
        self._made: dict[tuple[str, int, str], set[str]] = defaultdict(set)
        """Job, attempt, index -> pods that were made for it."""
        self.faults: list[str] = []
        self._stopped = False
        listed = api.call("GET", path_of("pods", namespace))
        self._version = str(listed["metadata"]["resourceVersion"])
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def forget(self, job: str) -> None:
        """A job is gone, and with it all that it owned: one that is made under the same name begins anew."""
        for made in [each for each in self._made if each[0] == job]:
            del self._made[made]

    def stop(self) -> None:
        """No more is recorded."""
        self._stopped = True

    def _follow(self) -> None:
        while not self._stopped:
            with (
                contextlib.suppress(urllib3.exceptions.HTTPError, OSError),
                self._api.watched("pods", self._namespace, self._version) as events,
            ):
                for event in events:
                    if event["type"] == "ERROR":
                        self.faults.append(f"the history has a gap: {event['object'].get('message')}")
                        return
                    self._version = event["object"]["metadata"]["resourceVersion"]
                    self._take(event["type"], event["object"])

    def _take(self, kind: str, pod: Plain) -> None:
        metadata, status = pod["metadata"], pod.get("status", {})
        found = metadata.get("labels") or {}
        if JOB not in found or ATTEMPT not in found:
            self._live.pop(metadata["uid"], None)
            return
        job, attempt, index = found[JOB], int(found[ATTEMPT]), str(found.get(INDEX))
        if kind == "ADDED":
            made = self._made[job, attempt, index]
            made.add(metadata["uid"])
            if len(made) > 1:
                self.faults.append(f"{job}: {len(made)} pods were made for node {index} of attempt {attempt}")
        has_ended = status.get("phase") in {"Failed", "Succeeded"}
        if kind == "DELETED" or has_ended or "deletionTimestamp" in metadata:
            self._live.pop(metadata["uid"], None)
        else:
            self._live[metadata["uid"]] = (job, attempt)
        attempts = {each for owner, each in self._live.values() if owner == job}
        if len(attempts) > 1:
            self.faults.append(f"{job}: attempts {sorted(attempts)} were alive together")
