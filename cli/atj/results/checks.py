"""`atj checkpoints verify` and `diff`: whether what is stored is what was committed, and what two checkpoints differ in."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Annotated, Any

import typer
from rich.table import Table

from adapter_agent.checkpoints.verify import Fault
from adapter_api.checkpoint import IndexEntry, folder_name
from atj.completion import checkpoint_steps
from atj.errors import CommandError, refusal
from atj.output_format import Output, OutputFormat
from atj.results import difference
from atj.results.address import Address, EndpointURL, Region, located, step_meant
from atj.results.difference import FileChange, ValueChange
from atj.storage.committed import Committed
from atj.terminal import cell, results, say, size, transfer

_MARKS = {"added": "+", "removed": "-", "changed": "~", "same": "="}
_STYLES = {"added": "green", "removed": "red", "changed": "yellow", "same": "dim"}


def verify_command(
    address: Address,
    *,
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
    every: Annotated[bool, typer.Option("--all", help="Verify every committed checkpoint.")] = False,
    output: Output = OutputFormat.table,
    endpoint_url: EndpointURL = None,
    region: Region = None,
) -> None:
    """Read every byte of a checkpoint and report files that differ from what was committed.

    Exit code 0 if the checkpoint is intact, 1 if something is damaged or missing.
    """
    with located(address, endpoint_url, region) as (committed, named):
        chosen = step_meant(address, named, step)
        if every and chosen is not None:
            raise refusal("give either --all or a step")
        entries = committed.entries() if every else (committed.entry(chosen),)
        found = []
        for entry in entries:
            faults = _faults(committed, entry)
            found.append((entry, faults))
            if output is OutputFormat.table:
                _print_faults(committed.uri_of(entry), entry, faults)
        if output is OutputFormat.json:
            typer.echo(json.dumps([_verified(committed, *each) for each in found], indent=2))
        elif not entries:
            say(results(), f"{committed.uri}: no checkpoint has been committed yet.")
        damaged = [entry.step for entry, faults in found if faults]
    if damaged:
        steps = ", ".join(map(str, damaged))
        raise CommandError(
            f"damaged: step {steps}. A restart goes back to the newest checkpoint that is whole; "
            "`atj checkpoints delete` removes a damaged one"
        )


def _faults(committed: Committed, entry: IndexEntry) -> Sequence[Fault]:
    with transfer(folder_name(entry.step), entry.bytes) as on_bytes:
        return committed.faults(entry, on_bytes)


def _print_faults(uri: str, entry: IndexEntry, faults: Sequence[Fault]) -> None:
    if not faults:
        say(results(), f"{uri}: {size(entry.bytes)}, every byte is as it was committed")
        return
    say(results(), f"{uri}: DAMAGED", style="bold red")
    for fault in faults:
        say(results(), f"  {fault.path}: {fault.what}")


def _verified(committed: Committed, entry: IndexEntry, faults: Sequence[Fault]) -> dict[str, Any]:
    return {
        "step": entry.step,
        "uri": committed.uri_of(entry),
        "bytes": entry.bytes,
        "whole": not faults,
        "faults": [{"path": fault.path, "what": fault.what} for fault in faults],
    }


def diff_command(
    address: Address,
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="[URI|DIR]",
            help="Address of the second checkpoint; by default the first address.",
            show_default=False,
        ),
    ] = None,
    *,
    before: Annotated[
        int | None,
        typer.Option(
            "--from", min=0, help="Step of the first checkpoint; by default the one before --to.", show_default=False
        ),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option("--to", min=0, help="Step of the second checkpoint; by default the newest.", show_default=False),
    ] = None,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Read both checkpoints and list the tensors whose values differ.")
    ] = False,
    output: Output = OutputFormat.table,
    endpoint_url: EndpointURL = None,
    region: Region = None,
) -> None:
    """Show how two checkpoints differ: files, metrics, configuration, tensors."""
    with ExitStack() as stack:
        first, first_named = stack.enter_context(located(address, endpoint_url, region))
        second, second_named = first, first_named if other is None else None
        if other is not None:
            second, second_named = stack.enter_context(located(other, endpoint_url, region))
        new = second.entry(step_meant(other or address, second_named, after))
        old = _old(
            first,
            step_meant(address, first_named if other is not None else None, before),
            new,
            elsewhere=other is not None,
        )
        pair = (first.manifest(old), second.manifest(new))
        files = difference.files(*pair)
        differing = {
            "metrics": list(difference.values(pair[0].metrics, pair[1].metrics)),
            "versions": list(difference.values(pair[0].versions, pair[1].versions)),
            "configuration": difference.configuration(*pair),
        }
        lines = _tensor_lines(first, second, old, new, files, read=tensors)
        names = (first.uri_of(old), second.uri_of(new))
    if output is OutputFormat.json:
        typer.echo(json.dumps(_plain_difference(names, files, differing, lines), indent=2))
        return
    say(results(), f"{names[0]}  ->  {names[1]}", style="bold")
    _print_files(files)
    for title, changes in differing.items():
        _print_values(title, changes)
    if lines:
        say(results(), "\ntensors", style="bold")
        for line in lines:
            say(results(), f"  {line}")


def _plain_difference(
    names: tuple[str, str], files: list[FileChange], differing: dict[str, list[ValueChange]], tensors: list[str]
) -> dict[str, Any]:
    return {
        "before": names[0],
        "after": names[1],
        "files": [
            {
                "path": change.path,
                "change": change.kind,
                "bytesBefore": None if change.before is None else change.before.size,
                "bytesAfter": None if change.after is None else change.after.size,
            }
            for change in files
        ],
        **{
            title: [{"name": each.name, "before": each.before, "after": each.after} for each in changes]
            for title, changes in differing.items()
        },
        "tensors": tensors,
    }


def _old(committed: Committed, step: int | None, new: IndexEntry, *, elsewhere: bool) -> IndexEntry:
    if step is not None or elsewhere:
        return committed.entry(step)
    earlier = [entry for entry in committed.entries() if entry.step < new.step]
    if not earlier:
        raise refusal(f"{committed.uri_of(new)} is the oldest checkpoint there; say what to compare it with: --from")
    return earlier[-1]


def _print_files(changes: list[FileChange]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    for change in changes:
        sizes = [size(file.size) for file in (change.before, change.after) if file is not None]
        table.add_row(
            _MARKS[change.kind], cell(change.path), " -> ".join(dict.fromkeys(sizes)), style=_STYLES[change.kind]
        )
    results().print(table)
    counts = {kind: sum(change.kind == kind for change in changes) for kind in _MARKS}
    say(results(), ", ".join(f"{count} {kind}" for kind, count in counts.items() if count))


def _print_values(title: str, changes: list[ValueChange]) -> None:
    if not changes:
        return
    say(results(), f"\n{title}", style="bold")
    table = Table(box=None, pad_edge=False, show_header=False)
    for change in changes:
        table.add_row(f"  {cell(change.name)}", cell(f"{_text(change.before)} -> {_text(change.after)}"))
    results().print(table)


def _text(value: Any) -> str:
    text = "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _tensor_lines(
    first: Committed, second: Committed, old: IndexEntry, new: IndexEntry, changes: list[FileChange], *, read: bool
) -> list[str]:
    lines = []
    total = sum(file.size for change in _changed_tensors(changes) for file in change) if read else 0
    with transfer("tensors", total) as on_bytes:
        for before, after in _changed_tensors(changes):
            tell = on_bytes if read else None
            there = first.tensors(old, before, tell), second.tensors(new, after, tell)
            lines += [f"{before.path}: {line}" for line in difference.tensors(*there)]
    return lines


def _changed_tensors(changes: list[FileChange]) -> Iterator[tuple[Any, Any]]:
    for change in changes:
        if change.kind == "changed" and change.path.endswith(".safetensors"):
            yield change.before, change.after
