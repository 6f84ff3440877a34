"""Credentials of a role: of a service account, a pod or an instance, handed out by a service that is played here.

The SDK asks for them; what is shown is that the agent lets it, and that they are renewed while it runs.
"""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from adapter_agent.storage.store import Store
from tests.agent.support.seaweed import KEY, SECRET

ROLE = "trainer"
INSTANCE = "/latest/meta-data/iam/security-credentials/"


class Roles:
    """AWS's STS, container credentials endpoint and instance metadata, for one role whose credentials soon expire."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        """Tokens by which somebody has asked."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        roles = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self._answer(b"session")

            def do_GET(self) -> None:
                self._answer(ROLE.encode() if self.path == INSTANCE else self._document())

            def do_POST(self) -> None:
                asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                assert asked["Action"] == ["AssumeRoleWithWebIdentity"]
                roles.shown += asked["WebIdentityToken"]
                self._answer(
                    "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
                    f"<AccessKeyId>{KEY}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>"
                    f"<SessionToken></SessionToken><Expiration>{_soon()}</Expiration>"
                    "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>".encode()
                )

            def _document(self) -> bytes:
                roles.shown.append(self.headers.get("Authorization") or self.headers["X-aws-ec2-metadata-token"])
                # Without a session token: the store of the tests knows none.
                given = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": "", "Expiration": _soon()}
                return json.dumps({"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": _soon(), **given}).encode()

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        return Handler


def _soon() -> str:
    """So soon that the SDK renews them before the next request."""
    return f"{datetime.now(UTC) + timedelta(seconds=60):%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture
def roles(monkeypatch: pytest.MonkeyPatch) -> Iterator[Roles]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    roles = Roles()
    yield roles
    roles.close()


def service_account(roles: Roles, token: Path) -> dict[str, str]:
    return {
        "AWS_ROLE_ARN": f"arn:aws:iam::123456789012:role/{ROLE}",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ENDPOINT_URL_STS": roles.url,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def pod(roles: Roles, token: Path) -> dict[str, str]:
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{roles.url}/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
    }


@pytest.mark.parametrize("role", [service_account, pod])
def test_a_role_is_asked_for_with_the_token_that_is_mounted_now(
    role: Callable[[Roles, Path], dict[str, str]],
    roles: Roles,
    endpoint: str,
    output_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    for name, value in role(roles, token).items():
        monkeypatch.setenv(name, value)
    store = Store.connect(output_uri, endpoint)
    store.put_if_absent("a", b"1")
    token.write_text("second")  # as the kubelet does before the first one expires
    assert store.get("a")[0] == b"1"
    assert list(dict.fromkeys(roles.shown)) == ["first", "second"]


def test_an_instances_role_is_found(
    roles: Roles, endpoint: str, output_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", roles.url)
    store = Store.connect(output_uri, endpoint)
    store.put_if_absent("a", b"1")
    assert store.get("a")[0] == b"1"
    assert set(roles.shown) == {"session"}
