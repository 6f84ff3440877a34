"""What users may name checkpoints by: an s3:// address, or the output folder of a local run."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from adapter_api.base import S3_SCHEME
from adapter_api.checkpoint import ATTEMPTS, step_of
from adapter_api.places import S3Location
from atj.errors import refusal
from atj.storage.committed import Committed
from atj.storage.embedded_store import REGION, embedded_store
from atj.storage.output_folder import OutputFolder

Address = Annotated[
    str,
    typer.Argument(
        metavar="URI|DIR", help="Output address s3://…, or output folder of an `atj run`.", show_default=False
    ),
]
CheckpointPlace = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Checkpoint folder, local or s3://…/checkpoint-STEP. An output address s3://…, or the output folder of an "
        "`atj run` or of the trainer, means its newest checkpoint.",
        show_default=False,
    ),
]
EndpointURL = Annotated[
    str | None,
    typer.Option(
        "--endpoint-url", metavar="URL", help="URL of an S3-compatible store; by default AWS S3.", show_default=False
    ),
]
Region = Annotated[str | None, typer.Option(metavar="NAME", help="Region of the bucket.", show_default=False)]


def step_meant(address: str, named: int | None, given: int | None) -> int | None:
    """The step that an address or an option names; None if neither does.

    Raises:
        CommandError: they name different ones.
    """
    if given is not None and named is not None and given != named:
        raise refusal(f"{address} names step {named}, --step {given}; give one of them")
    return named if given is None else given


def step_required(address: str, named: int | None, given: int | None) -> int:
    """The same, where one has to be named.

    Raises:
        CommandError: none is, or different ones are.
    """
    step = step_meant(address, named, given)
    if step is None:
        raise refusal(f"{address}: which checkpoint? Give --step")
    return step


_OF_ATTEMPT = re.compile(rf"/{ATTEMPTS}\d+$")


@contextmanager
def located(
    text: str, endpoint_url: str | None = None, region: str | None = None
) -> Iterator[tuple[Committed, int | None]]:
    """The output that `text` names, and the step where it names a single checkpoint.

    For the output folder of a local run its embedded store is started for as long as the block.

    Raises:
        CommandError: `text` names neither.
    """
    if text.startswith(S3_SCHEME):
        base, _, last = text.rstrip("/").rpartition("/")
        step = step_of(last)
        # On a store without conditional writes a checkpoint lies below its attempt's prefix.
        base = _OF_ATTEMPT.sub("", base)
        yield Committed(_location(text if step is None else base, endpoint_url, region)), step
        return
    folder = OutputFolder(Path(text))
    record = folder.record()
    if record is None or record.output is None:
        raise refusal(f"{text}: is neither an s3:// address nor the output folder of an `atj run`")
    if record.store is None:
        yield Committed(record.output), None
        return
    with embedded_store((folder.path / record.store).resolve(), join=True) as endpoint:
        yield Committed(record.output.model_copy(update={"endpoint_url": endpoint, "region": REGION})), None


def _location(uri: str, endpoint_url: str | None, region: str | None) -> S3Location:
    try:
        return S3Location(uri=uri, endpoint_url=endpoint_url, region=region)
    except ValidationError as error:
        messages = (str(detail["msg"]).removeprefix("Value error, ") for detail in error.errors(include_url=False))
        raise refusal("\n".join(messages)) from None
