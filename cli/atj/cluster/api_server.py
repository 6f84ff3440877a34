"""The only Kubernetes calls of the command line: jobs, their pods, Events and logs, as plain data."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from adapter_api.job import GROUP, KIND, PLURAL, VERSION
from adapter_api.names import JOB_LABEL
from adapter_api.progress import ExitCode
from atj.errors import CommandError, refusal

Plain = dict[str, Any]

TIMEOUT_SECONDS = 30
PAGE = 500
_CRD_MISSING = (
    f'this cluster does not know {KIND}: install the chart first (docs/kubernetes.md, "Install"), or choose another '
    "--context"
)


class Cluster:
    """One namespace of the cluster that a kubeconfig names. Every method raises CommandError."""

    def __init__(self, client: Any, namespace: str) -> None:
        self.namespace = namespace
        self.seconds: float = TIMEOUT_SECONDS
        """Until the API server must have answered."""
        self._client = client

    @classmethod
    def connect(cls, kubeconfig: Path | None, context: str | None, namespace: str | None) -> Self:
        """As kubectl does: --kubeconfig, KUBECONFIG or ~/.kube/config; inside a pod its service account.

        Raises:
            CommandError: there is no cluster to be found, or no such context.
        """
        from kubernetes import client, config  # half a second that commands without a cluster need not spend

        configuration = client.Configuration()
        try:
            config.load_kube_config(  # type: ignore[no-untyped-call]
                str(kubeconfig) if kubeconfig else None, context, client_configuration=configuration
            )
            contexts, active = config.list_kube_config_contexts(str(kubeconfig) if kubeconfig else None)  # type: ignore[no-untyped-call]
            chosen = next((each for each in contexts if each["name"] == context), active)
            found = chosen["context"].get("namespace")
        except config.ConfigException as error:
            try:
                if kubeconfig is not None or context is not None:
                    raise
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            except config.ConfigException:
                raise refusal(f"no cluster: {error}; name one with --kubeconfig, --context or KUBECONFIG") from error
            found = _namespace_of_pod()
        configuration.retries = 3
        return cls(client.ApiClient(configuration), namespace or found or "default")

    def close(self) -> None:
        """Ends all connections."""
        self._client.close()

    def job(self, name: str) -> Plain:
        """One job."""
        return self._json("GET", f"{self._jobs()}/{name}")

    def find_job(self, name: str) -> Plain | None:
        """One job, or None if there is none of that name."""
        try:
            return self.job(name)
        except NotFound:
            return None

    def jobs(self, *, everywhere: bool = False) -> list[Plain]:
        """All jobs of the namespace, or of all namespaces."""
        path = f"/apis/{GROUP}/{VERSION}/{PLURAL}" if everywhere else self._jobs()
        return self._list(path)

    def create(self, job: Plain, *, dry_run: bool = False) -> Plain:
        """Creates a job."""
        query = {"fieldManager": "atj", "fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        return self._json("POST", self._jobs(), job, query)

    def patch(self, name: str, change: Plain) -> Plain:
        """Merges a change into a job."""
        content = "application/merge-patch+json"
        return self._json("PATCH", f"{self._jobs()}/{name}", change, {"fieldManager": "atj"}, content)

    def delete(self, name: str) -> None:
        """Deletes a job; what it owns is deleted in the background."""
        self._json("DELETE", f"{self._jobs()}/{name}", {"propagationPolicy": "Background"})

    def pods(self, name: str) -> list[Plain]:
        """A job's pods, of all attempts."""
        return self._list(f"/api/v1/namespaces/{self.namespace}/pods", {"labelSelector": f"{JOB_LABEL}={name}"})

    def pod(self, name: str) -> Plain | None:
        """One pod, or None if it is gone."""
        try:
            return self._json("GET", f"/api/v1/namespaces/{self.namespace}/pods/{name}")
        except NotFound:
            return None

    def events(self, uid: str) -> list[Plain]:
        """The Events about an object, oldest first."""
        found = self._list(
            f"/api/v1/namespaces/{self.namespace}/events", {"fieldSelector": f"involvedObject.uid={uid}"}
        )
        return sorted(
            found, key=lambda event: str(event.get("lastTimestamp") or event["metadata"]["creationTimestamp"])
        )

    def log(self, pod: str, container: str, *, follow: bool, tail: int | None, since: str | None) -> Iterator[bytes]:
        """Lines of a container's log, each with the time at which it was written in front.

        Raises:
            CommandError: it has no log (yet), or the connection broke.
        """
        query: dict[str, str] = {"container": container, "timestamps": "true"}
        query |= {"follow": "true"} if follow else {}
        query |= {"tailLines": str(tail)} if tail is not None else {}
        query |= {"sinceTime": since} if since is not None else {}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        response = self._send("GET", path, None, query, "", timeout=(self.seconds, None if follow else self.seconds))
        rest = b""
        try:
            for chunk in response.stream(65_536, decode_content=False):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
        except Exception as error:
            raise CommandError(f"the log of pod {pod} broke off: {error}") from error
        finally:
            response.release_conn()
        if rest:
            yield rest

    def _jobs(self) -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}"

    def _list(self, path: str, query: dict[str, str] | None = None) -> list[Plain]:
        found: list[Plain] = []
        continues = ""
        while True:
            page = self._json("GET", path, None, {**(query or {}), "limit": str(PAGE), "continue": continues})
            found += page["items"]
            continues = page["metadata"].get("continue", "")
            if not continues:
                return found

    def _json(
        self, verb: str, path: str, body: Plain | None = None, query: dict[str, str] | None = None,
        content: str = "application/json",
    ) -> Plain:  # fmt: skip
        found: Plain = json.loads(self._send(verb, path, body, query or {}, content).data)
        return found

    def _send(
        self,
        verb: str,
        path: str,
        body: Plain | None,
        query: dict[str, str],
        content: str,
        timeout: Any = None,
    ) -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        request = self._client.param_serialize(
            verb, path, query_params=[(name, value) for name, value in query.items() if value], body=body,
            header_params={"Accept": "application/json", **({"Content-Type": content} if body is not None else {})},
            auth_settings=["BearerToken"],
        )  # fmt: skip
        try:
            response = self._client.call_api(*request, _request_timeout=timeout or self.seconds).response
            if response.status < 300:
                return response
            raise _refused(response.status, response.data, path)
        except (ApiException, HTTPError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise CommandError(f"the cluster at {self._client.configuration.host} does not answer: {reason}") from error


class NotFound(CommandError):  # noqa: N818 - it reads as the fact that it states
    """There is no such object."""


def _refused(status: int, body: Any, path: str) -> CommandError:
    try:
        said = json.loads(body)
    except (TypeError, ValueError):
        return CommandError(f"the API server answered {status} to {path}")
    details, message = said.get("details") or {}, said.get("message") or f"the API server answered {status}"
    if status == 404:
        if not details.get("name"):
            return refusal(_CRD_MISSING if PLURAL in path else message)
        return NotFound(message, ExitCode.INVALID)
    if status in {400, 401, 403, 409, 422}:
        return refusal(message)
    return CommandError(message)


def _namespace_of_pod() -> str | None:
    file = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None
