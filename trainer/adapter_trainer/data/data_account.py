"""What a run says of its data before the first step: how many samples, and what is left out."""

from pathlib import Path

from adapter_api.data import DataParams
from adapter_trainer.data.pairs_table import Table

MEANINGS = {
    "join": "joined as one text",
    "first": "of which the first is read",
    "any": "of which each reading draws one",
}
"""Of data.params.caption_lines."""


def account(params: DataParams, table: Table, animated: set[Path]) -> list[str]:
    """PURE: the lines, each beginning with what the configuration calls the data.

    Args:
        params: of the data.
        table: what was read.
        animated: pictures that have further frames or pages, as far as anybody has looked.
    """
    rows = table.rows
    pictures = len({row.image for row in rows})
    different = len({caption for row in rows for caption in row.captions if caption.strip()})
    empty = sum(not any(caption.strip() for caption in row.captions) for row in rows)
    first = f"{_counted(len(rows), 'sample')} of {_counted(pictures, 'picture')}, {_counted(different, 'different caption')}"
    lines = [f"{first}; {empty} of the samples have none" if empty else first]
    if table.several_lines:
        lines.append(
            f"{_counted(table.several_lines, 'caption')} of several lines, {MEANINGS[params.caption_lines]} "
            f"(data.params.caption_lines: {params.caption_lines})"
        )
    drawn = params.caption_lines == "any" and table.several_lines
    if not drawn and (lists := len({row.line for row in rows if row.other_captions})):
        lines.append(f"{_counted(lists, 'picture')} with several captions, of which each reading draws one")
    if animated:
        lines.append(
            f"{_counted(len(animated), 'picture')} of several frames or pages, of which the first is read; one is "
            f"{min(animated).name}"
        )
    return [
        f"{params.pairs_file_path}: {line}"
        for line in [*lines, *(f"not used: {note}" for note in table.unused), *table.notes]
    ]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
