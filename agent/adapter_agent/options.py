"""The command line of the agent, as `adapter_api.launch` writes it, into frozen values."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from adapter_agent.local_files import Folders
from adapter_agent.storage.dialect import PLAIN, Dialect
from adapter_api.base import S3URI
from adapter_api.kubernetes import DEFAULT_GRACE_SECONDS
from adapter_api.launch import CREDENTIALS_PREFIX
from adapter_api.retention import Policy
from adapter_api.sections import KeepBest
from adapter_api.sources import StoredModel

if TYPE_CHECKING:
    from adapter_agent.storage.store import Store

DRAIN_SECONDS = 600.0
TERMINATION_MESSAGE = "/dev/termination-log"
KEEP_ALL = Policy()
_S3_URI: TypeAdapter[str] = TypeAdapter(S3URI)


@dataclass(frozen=True)
class Location:
    """An address in object storage and how to reach it."""

    uri: str
    endpoint_url: str | None
    region: str | None
    variables: str = ""
    """Prefix of the environment variables that hold credentials of its own, if there are such."""
    conditional: bool = True
    """Whether the store honours conditional writes."""
    dialect: Dialect = PLAIN
    """What its requests are like."""

    def connect(self) -> "Store":
        """A store there; sends nothing yet."""
        from adapter_agent.storage.store import Store  # brings boto3, which `train` does without

        return Store.connect(
            self.uri, self.endpoint_url, self.region, self.variables, conditional=self.conditional, dialect=self.dialect
        )


@dataclass(frozen=True)
class NodeOptions:
    """What both commands know about their node."""

    attempt: int
    node: int
    nodes: int
    world_size: int
    folders: Folders
    output: Location
    cache: Location | None = None
    """Where encodings are kept."""


@dataclass(frozen=True)
class RestoreOptions(NodeOptions):
    """`restore`."""

    data: Location | None = None
    data_dir: Path | None = None
    models: tuple[StoredModel, ...] = ()
    models_at: tuple[str | None, str | None] = (None, None)
    """Endpoint URL and region of their store."""
    models_dialect: Dialect = PLAIN
    resume: Location | None = None
    resume_step: int | None = None

    def model_location(self, uri: str) -> Location:
        """Where the models of an address are."""
        return Location(uri, *self.models_at, f"{CREDENTIALS_PREFIX}MODELS_", dialect=self.models_dialect)


@dataclass(frozen=True)
class SyncOptions(NodeOptions):
    """`sync`."""

    listen: tuple[str, int] = ("127.0.0.1", 0)
    keep: Policy = KEEP_ALL
    deletion_delay_seconds: int = 0
    drain_seconds: float = DRAIN_SECONDS


@dataclass(frozen=True)
class TrainOptions:
    """`train`."""

    node: int
    folders: Folders
    rendezvous: tuple[str, int]
    """Where node 0 will listen."""
    argv: tuple[str, ...]
    """torchrun and its arguments."""
    termination_message: Path
    grace_seconds: float
    """From the signal to stop until this node has ended."""


def parse(argv: Sequence[str]) -> RestoreOptions | SyncOptions | TrainOptions:
    """The options of one command. Ends the process with code 2 and a message if they are wrong."""
    parser = _parser()
    given = parser.parse_args(argv)
    if given.verb == "train":
        if not given.command:
            parser.error("train needs the trainer's command after --")
        folders = Folders(Path(given.work).resolve())
        return TrainOptions(
            given.node,
            folders,
            given.rendezvous,
            tuple(given.command),
            Path(given.termination_message),
            given.grace_seconds,
        )
    if given.node >= given.nodes:
        parser.error(f"--node={given.node} counts from 0 and must be below --nodes={given.nodes}")
    common = {
        "attempt": given.attempt,
        "node": given.node,
        "nodes": given.nodes,
        "world_size": given.world_size,
        "folders": Folders(Path(given.work).resolve()),
        "output": _location(given, "output"),
        "cache": _location(given, "cache"),
    }
    if given.verb == "sync":
        return SyncOptions(
            **common,
            listen=given.listen,
            keep=Policy(given.keep_last, given.keep_every, given.keep_best),
            deletion_delay_seconds=given.deletion_delay_seconds,
            drain_seconds=given.drain_seconds,
        )
    if (given.data_uri is None) != (given.data_dir is None):
        parser.error("--data-uri and --data-dir belong together")
    if given.resume_step is not None and given.resume_uri is None:
        parser.error("--resume-step needs --resume-uri")
    return RestoreOptions(
        **common,
        data=_location(given, "data"),
        data_dir=None if given.data_dir is None else Path(given.data_dir).resolve(),
        models=tuple(given.model),
        models_at=(given.models_endpoint_url, given.models_region),
        models_dialect=_dialect(given, "models"),
        resume=_location(given, "resume"),
        resume_step=given.resume_step,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="adapter_agent", description=__import__("adapter_agent").__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    restore = verbs.add_parser("restore", help="before training: claim the output, stage data, fetch the checkpoint")
    sync = verbs.add_parser("sync", help="during training: upload and commit checkpoints, report progress")
    for verb in (restore, sync):
        verb.add_argument("--attempt", type=_count(1), required=True, help="number of this attempt, from 1")
        verb.add_argument("--node", type=_count(0), required=True, help="index of this node; node 0 commits")
        verb.add_argument("--nodes", type=_count(1), required=True)
        verb.add_argument("--world-size", type=_count(1), required=True, help="training processes on all nodes")
        verb.add_argument("--work", required=True, help="folder of this node")
        _add_location(verb, "output", required=True)
        _add_location(verb, "cache")
        verb.add_argument(
            "--no-conditional-writes",
            action="store_true",
            help="the store that is written to has no conditional writes",
        )
        verb.add_argument(
            "--checksums", choices=("SHA256", "MD5"), default="SHA256", help="checksum sent with every upload"
        )
        verb.add_argument("--encryption", metavar="ALGORITHM", help="server-side encryption of written objects")
        verb.add_argument("--kms-key-id", metavar="ID", help="key of that encryption")
    _add_location(restore, "data")
    restore.add_argument("--data-dir", help="folder that data is staged to")
    restore.add_argument("--model", type=_model, action="append", default=[], metavar="JSON", help="a model to stage")
    _add_access(restore, "models")
    _add_location(restore, "resume")
    restore.add_argument(
        "--resume-step", type=_count(0), help="step of the checkpoint to start from; by default the newest"
    )
    sync.add_argument("--listen", type=_address, default=("127.0.0.1", 0), metavar="HOST:PORT")
    sync.add_argument("--keep-last", type=_count(1), help="newest committed checkpoints to keep; by default all")
    sync.add_argument(
        "--keep-every", type=_count(1), metavar="STEPS", help="also keep checkpoints at multiples of this step"
    )
    sync.add_argument(
        "--keep-best", type=_best, metavar="METRIC:min|max:COUNT", help="also keep the best checkpoints by a metric"
    )
    sync.add_argument(
        "--deletion-delay-seconds",
        type=_count(0),
        default=0,
        help="seconds from the removal from the index to the deletion of the files",
    )
    sync.add_argument("--drain-seconds", type=float, default=DRAIN_SECONDS, help="seconds to finish after SIGTERM")
    train = verbs.add_parser(
        "train", help="in a pod: run the trainer, then wait until its last checkpoint is committed"
    )
    train.add_argument("--node", type=_count(0), required=True, help="index of this node")
    train.add_argument("--work", required=True, help="folder of this node")
    train.add_argument(
        "--rendezvous", type=_address, required=True, metavar="HOST:PORT", help="address where node 0 listens"
    )
    train.add_argument(
        "--grace-seconds", type=float, default=DEFAULT_GRACE_SECONDS, help="seconds to save and commit after SIGTERM"
    )
    train.add_argument("--termination-message", default=TERMINATION_MESSAGE, help="file that the kubelet reads")
    train.add_argument("command", nargs="*", help="command line of the trainer, after --")
    return parser


def _add_location(parser: argparse.ArgumentParser, role: str, *, required: bool = False) -> None:
    parser.add_argument(f"--{role}-uri", type=_uri, required=required, metavar="s3://BUCKET/PREFIX")
    _add_access(parser, role)


def _add_access(parser: argparse.ArgumentParser, role: str) -> None:
    parser.add_argument(
        f"--{role}-endpoint-url", metavar="URL", help="URL of an S3-compatible store; by default AWS S3"
    )
    parser.add_argument(f"--{role}-region", metavar="REGION")
    parser.add_argument(
        f"--{role}-addressing-style", choices=("path", "virtual"), help="where requests name the bucket"
    )
    parser.add_argument(
        f"--{role}-requester-pays", action="store_true", help="agree to pay, for buckets that charge the requester"
    )


def _location(given: argparse.Namespace, role: str) -> Location | None:
    uri, endpoint_url, region = (getattr(given, f"{role}_{part}") for part in ("uri", "endpoint_url", "region"))
    is_written = role in ("output", "cache")
    variables = "" if is_written else f"{CREDENTIALS_PREFIX}{role.upper()}_"
    conditional = not (is_written and given.no_conditional_writes)
    if uri is None:
        return None
    return Location(uri, endpoint_url, region, variables, conditional, _dialect(given, role, is_written=is_written))


def _dialect(given: argparse.Namespace, role: str, *, is_written: bool = False) -> Dialect:
    style, pays = (getattr(given, f"{role}_{part}") for part in ("addressing_style", "requester_pays"))
    if not is_written:
        return Dialect(style, requester_pays=pays)
    return Dialect(style, pays, given.checksums, given.encryption, given.kms_key_id)


def _uri(text: str) -> str:
    try:
        return _S3_URI.validate_python(text)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise argparse.ArgumentTypeError(message) from None


def _model(text: str) -> StoredModel:
    try:
        return StoredModel.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise argparse.ArgumentTypeError(f"{'.'.join(map(str, fault['loc'])) or 'JSON'}: {fault['msg']}") from None


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _best(text: str) -> KeepBest:
    metric, _, rest = text.partition(":")
    mode, _, count = rest.partition(":")
    try:
        return KeepBest.model_validate({"metric": metric, "mode": mode, "count": int(count)})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not METRIC:min|max:COUNT") from None


class _count:  # noqa: N801 - argparse shows the name of a type in its messages
    """An integer of at least `least`."""

    def __init__(self, least: int) -> None:
        self.least = least

    def __call__(self, text: str) -> int:
        if not text.isdecimal() or int(text) < self.least:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {self.least}")
        return int(text)
