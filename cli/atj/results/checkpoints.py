"""`atj checkpoints list` and `get`: what is committed, and bringing it here."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from adapter_api.checkpoint import MANIFEST_NAME, IndexEntry, folder_name
from atj.completion import checkpoint_steps
from atj.errors import refusal
from atj.output_format import Output, OutputFormat
from atj.results.address import Address, EndpointURL, Region, located, step_meant
from atj.storage.checkpoint_table import show_checkpoints
from atj.storage.committed import Committed
from atj.terminal import results, say, transfer


def list_command(
    address: Address,
    endpoint_url: EndpointURL = None,
    region: Region = None,
    output: Output = OutputFormat.table,
) -> None:
    """List the committed checkpoints of an output, newest last.

    Credentials come from the AWS environment. For the output folder of an `atj run`, the command starts the folder's embedded
    store while it runs.
    """
    with located(address, endpoint_url, region) as (committed, _):
        entries = committed.entries()
        if output is OutputFormat.json:
            typer.echo(json.dumps([_plain(committed, entry) for entry in entries], indent=2))
        elif not entries:
            say(results(), f"{committed.uri}: no checkpoint has been committed yet.")
        else:
            show_checkpoints(results(), committed, entries)


def get_command(
    address: Address,
    step: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="STEP",
            help="Step of the checkpoint; by default the newest.",
            show_default=False,
            autocompletion=checkpoint_steps,
        ),
    ] = None,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder in which to create checkpoint-STEP.")] = Path(),
    endpoint_url: EndpointURL = None,
    region: Region = None,
) -> None:
    """Fetch a checkpoint and verify every byte.

    The folder checkpoint-STEP appears when it is complete. To resume an interrupted download, run the same command again.
    """
    with located(address, endpoint_url, region) as (committed, named):
        entry = committed.entry(step_meant(address, named, step))
        folder = to / folder_name(entry.step)
        if folder.exists() and not (folder / MANIFEST_NAME).is_file():
            raise refusal(f"{folder}: exists and is not a fetched checkpoint; move it away, or choose another --to")
        files = fetch(committed, entry, folder)
    say(results(), f"{folder}: {files} files, verified")


def fetch(committed: Committed, entry: IndexEntry, folder: Path) -> int:
    """Downloads a checkpoint with a progress bar on standard error; returns its number of files."""
    with transfer(folder.name, entry.bytes) as on_bytes:
        return len(committed.fetch(entry.step, folder, on_bytes).files)


def _plain(committed: Committed, entry: IndexEntry) -> dict[str, Any]:
    return {
        "step": entry.step,
        "uri": committed.uri_of(entry),
        "bytes": entry.bytes,
        "files": len(committed.manifest(entry).files),
        "committedAt": entry.committed_at.isoformat(),
        "attempt": entry.attempt,
        "pinned": entry.pinned,
        "metrics": entry.metrics,
    }
