"""`atj checkpoints pin`, `unpin`, `delete`, `prune` and `adopt`: what changes the index; whoever owns the output keeps it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer

from adapter_agent.errors import ContentConflict
from adapter_api.checkpoint import IndexEntry
from atj.completion import checkpoint_steps
from atj.errors import refusal
from atj.results.address import Address, EndpointURL, Region, located, step_required
from atj.storage.committed import FOR_EVER, Committed
from atj.terminal import results, say, size, transfer

Step = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="STEP",
        help="Step of the checkpoint; required unless the address names one.",
        show_default=False,
        autocompletion=checkpoint_steps,
    ),
]


def pin_command(address: Address, step: Step = None, endpoint_url: EndpointURL = None, region: Region = None) -> None:
    """Pin a checkpoint: no policy removes it, and `delete` removes it only with --force."""
    _pin(address, step, endpoint_url, region, pinned=True)


def unpin_command(address: Address, step: Step = None, endpoint_url: EndpointURL = None, region: Region = None) -> None:
    """Unpin a checkpoint: the job's retention policy applies to it again."""
    _pin(address, step, endpoint_url, region, pinned=False)


def _pin(address: str, step: int | None, endpoint_url: str | None, region: str | None, *, pinned: bool) -> None:
    with located(address, endpoint_url, region) as (committed, named):
        chosen = committed.entry(step_required(address, named, step))
        changed = committed.pin(chosen, pinned=pinned)
        state = "pinned" if pinned else "not pinned"
        say(results(), f"{committed.uri_of(chosen)}: {state if changed else f'was {state} already'}")


def delete_command(
    address: Address,
    *,
    step: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            metavar="STEP",
            help="Step of a checkpoint; required unless the address names one; can be repeated.",
            show_default=False,
            autocompletion=checkpoint_steps,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also delete the newest checkpoint, a pinned one, or one that a run has started from."
        ),
    ] = False,
    endpoint_url: EndpointURL = None,
    region: Region = None,
) -> None:
    """Delete checkpoints: first from the index, then their files.

    If the command is interrupted, `prune` deletes the remaining files.
    """
    with located(address, endpoint_url, region) as (committed, named):
        steps = step or ([] if named is None else [named])
        if not steps or (named is not None and steps != [named]):
            step_required(address, named, steps[0] if steps else None)
            raise refusal(f"{address} names step {named}; name others at the output address itself")
        entries = [committed.entry(each) for each in steps]
        if not force:
            _refuse_needed(committed, entries)
        committed.delete(steps, datetime.now(UTC))
        for entry in entries:
            say(results(), f"{committed.uri_of(entry)}: deleted, {size(entry.bytes)}")


def _refuse_needed(committed: Committed, entries: list[IndexEntry]) -> None:
    for why in (why for entry in entries for why in _needed(committed, entry)):
        raise refusal(f"{why}; to delete it all the same: --force")


def _needed(committed: Committed, entry: IndexEntry) -> Iterator[str]:
    uri = committed.uri_of(entry)
    newest = committed.newest()
    if newest is not None and entry.step == newest.step:
        yield f"{uri} is the newest checkpoint, from which a restart would continue"
    if entry.pinned:
        yield f"{uri} is pinned"
    if committed.in_use() == entry.step:
        yield f"{uri} is what the newest attempt has started from"


def prune_command(
    address: Address,
    *,
    now: Annotated[
        bool, typer.Option("--now", help="Also delete files that other clients may still be downloading.")
    ] = False,
    endpoint_url: EndpointURL = None,
    region: Region = None,
) -> None:
    """Delete the files of checkpoints that were removed from the index. A running job does this itself."""
    with located(address, endpoint_url, region) as (committed, _):
        removals = committed.delete_due(FOR_EVER if now else datetime.now(UTC))
        waiting = () if (current := committed.index()) is None else current.removals
        for removal in removals:
            say(results(), f"{committed.uri_of(removal)}: deleted")
        for removal in waiting:
            until = f"{removal.delete_after.astimezone():%Y-%m-%d %H:%M:%S}"
            say(results(), f"{committed.uri_of(removal)}: may still be fetched until {until}")
        if not removals and not waiting:
            say(results(), f"{committed.uri}: nothing to delete")


def adopt_command(address: Address, endpoint_url: EndpointURL = None, region: Region = None) -> None:
    """Rebuild a lost or damaged index from the checkpoints that verify.

    Every byte is read. A damaged index is kept in quarantine/. A running job keeps its claim on the output. Pins are lost,
    and checkpoints that were removed from the index come back if their files still exist. Folders that do not verify are
    left unchanged.
    """
    with located(address, endpoint_url, region) as (committed, named):
        if named is not None:
            raise refusal(f"{address} is a single checkpoint; give the output address that contains it")
        try:
            with transfer("verifying", committed.adoptable_bytes()) as on_bytes:
                adopted = committed.adopt(on_bytes)
        except ContentConflict as error:
            raise refusal(str(error)) from None
        for entry in adopted.index.checkpoints:
            say(results(), f"{committed.uri_of(entry)}: {size(entry.bytes)}, whole, in the index again")
        for each in adopted.refused:
            say(results(), f"{each.uri}: stays out of the index, and as it is: {each.reason}")
        count, owner = len(adopted.index.checkpoints), adopted.index.attempt
        say(
            results(), f"{committed.uri}: the index names {count} checkpoints; the next attempt after {owner} continues"
        )
