"""Clients of the SDK for one store, and where their credentials come from."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boto3.session import Session
from botocore.config import Config

from adapter_agent.storage.dialect import Dialect
from adapter_agent.storage.patience import Patience
from adapter_agent.storage.proxies import is_loopback
from adapter_api.launch import CREDENTIALS_FOLDER

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_SECONDS = 4
READ_TIMEOUT_SECONDS = 60
ATTEMPTS = 3
"""Tries of one request. With the connect timeout it keeps the report of a dead endpoint within 15 seconds."""
MAX_CONNECTIONS = 16
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


# Only the client's plain calls are used, here and in transfer.py, never boto3's transfer manager: it takes no conditions,
# and where the CRT library is installed it may ignore the endpoint (boto3's preferred_transfer_client).
def open_client(
    session: Session, endpoint_url: str | None, region: str | None, dialect: Dialect, conditional: bool,  # noqa: FBT001
    read_timeout: float = READ_TIMEOUT_SECONDS, attempts: int = ATTEMPTS, *, sign_payloads: bool = True,
    connections: int = MAX_CONNECTIONS,
) -> "S3Client":  # fmt: skip
    """A client of a store; sends nothing yet."""
    client = session.client(
        "s3",
        endpoint_url=endpoint_url,
        # Without one in the job or the environment: S3-compatible stores need some region to sign for.
        region_name=region or session.region_name or "us-east-1",
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=read_timeout,
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=connections,
            proxies={} if endpoint_url is not None and is_loopback(endpoint_url) else None,
            s3=_flavour(dialect.addressing_style or _configured_style(session, endpoint_url), sign_payloads),
            # Automatic checksums travel as trailers, which several S3-compatible stores refuse; ours are explicit.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    if not conditional:
        # A store may refuse what it does not know, and a condition that is ignored is better not sent.
        for operation in ("PutObject", "CompleteMultipartUpload"):
            client.meta.events.register(f"before-parameter-build.s3.{operation}", _remove_conditions)
    dialect.serve(client)
    Patience().serve(client)
    return client


def _flavour(style: str, sign_payloads: bool) -> Any:  # noqa: FBT001
    return {"addressing_style": style, **({} if sign_payloads else {"payload_signing_enabled": False})}


def _configured_style(session: Session, endpoint_url: str | None) -> str:
    """What the user's AWS config file says; else the bucket in the path, which every store with an endpoint of its own takes."""
    said = session._session.get_scoped_config().get("s3", {})  # noqa: SLF001 - boto3 shows it no other way
    style = said.get("addressing_style") if isinstance(said, dict) else None
    return style if style in ("path", "virtual") else "path" if endpoint_url else "auto"


def _remove_conditions(params: dict[str, object], **_: object) -> None:
    for name in ("IfNoneMatch", "IfMatch"):
        params.pop(name, None)


def sessions(variables: str = "") -> Callable[[], Session]:
    """Makes sessions with the credentials as they are then: of a mounted Secret, or of the usual AWS environment.

    Args:
        variables: Prefix of environment variables that hold credentials of their own, if there are such.
    """

    def new_session() -> Session:
        # Not boto3's default session, which remembers the credentials that it found first.
        own = (os.environ.get(f"{variables}{name}") or None for name in CREDENTIALS)
        key, secret, token = own if variables else _mounted(Path(CREDENTIALS_FOLDER))
        return Session(key, secret, token)

    return new_session


def _mounted(folder: Path) -> list[str | None]:
    """What a Secret that is mounted at `folder` says now; nothing where none is mounted."""
    # Kubernetes replaces all files of a Secret at once, by a link: those of two versions do not mix.
    folder = (folder / "..data").resolve() if (folder / "..data").exists() else folder
    files = (folder / name for name in CREDENTIALS)
    return [file.read_text(encoding="utf-8").strip() or None if file.is_file() else None for file in files]
