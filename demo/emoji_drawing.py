"""Held-out emoji as the adapters draw them: from all conditions, without each of them, and with each of another picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adapter_trainer.data.order import Place
from adapter_trainer.sampling.sample import Row, Sampler
from demo import emoji
from demo.emoji import FRAMED, PLAIN, Picture
from demo.emoji_judge import EmojiJudge, Obeyed
from demo.openmoji_pictures import pictures as read_pictures

ALL, REAL = "all", "real"
BATCH = 60
CONTROL_EVERY = 2
"""One of so many pictures is also drawn without each condition, and with another's."""
EXAMPLES = 2000
"""Of training's pictures, that judges learn from."""
_OFFSET = 41
"""To the picture that another condition is taken from: of another style, and mostly of another emoji."""


@dataclass(frozen=True)
class Condition:
    """What pictures are drawn from."""

    column: str
    module: str
    """What reads it."""


CONDITIONS = {
    "reference": Condition("reference", "IP-Adapter"),
    "label": Condition("emoji", "label_to_token"),
    "lean": Condition("lean", "embed_to_token"),
    "word": Condition("caption", "text encoder"),
}


def row_of(picture: Picture, data: Path) -> dict[str, int | str | tuple[float, ...]]:
    """All conditions of a picture."""
    return {
        "emoji": picture.label,
        "lean": (picture.lean,),
        "reference": str(data / picture.reference),
        "caption": FRAMED if picture.is_framed else PLAIN,
    }


def selections(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """PURE: what the pictures are drawn from, by title: everything, everything but one, everything but one of another."""
    others = [*rows[_OFFSET % len(rows) :], *rows[: _OFFSET % len(rows)]]
    found: dict[str, list[Row]] = {ALL: list(rows)}
    for title, condition in CONDITIONS.items():
        name = condition.column
        found[f"no {title}"] = [{key: value for key, value in row.items() if key != name} for row in rows]
        found[f"another {title}"] = [{**row, name: other[name]} for row, other in zip(rows, others, strict=True)]
    return found


def drawn(sampler: Sampler, pictures: Sequence[Picture], data: Path) -> dict[str, Tensor]:
    """Each selection as pictures [N, 3, H, W] in 0..1, without guidance; those of one emoji begin with the same noise."""
    found = {}
    for title, rows in selections([row_of(picture, data) for picture in pictures]).items():
        chosen = range(0, len(rows), 1 if title == ALL else CONTROL_EVERY)
        parts = [
            sampler.draw_at(
                [rows[number] for number in part], [Place(number, 0) for number in part], guidance_scale=1.0
            )
            for part in (chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH))
        ]
        found[title] = torch.cat(parts).clamp(0, 1).float().cpu()
    return found


def judged(drawn: Mapping[str, Tensor], pictures: Sequence[Picture], data: Path) -> dict[str, Obeyed]:
    """What each selection shows of what was asked for, and the real pictures too, for comparison."""
    known = emoji.pictures(0, emoji.STYLES, emoji.SEED)
    known = known[:: max(1, len(known) // EXAMPLES)]
    judge = EmojiJudge(known, read_pictures([data / picture.file for picture in known]))
    real = read_pictures([data / picture.file for picture in pictures])
    found = {title: judge.obeyed(pictures[::CONTROL_EVERY], images) for title, images in drawn.items() if title != ALL}
    return {ALL: judge.obeyed(pictures, drawn[ALL]), **found, REAL: judge.obeyed(pictures, real)}
