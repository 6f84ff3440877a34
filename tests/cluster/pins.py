"""How old the versions are that the go.mod files here pin: other people's programs, which a test should meet as users do."""

import datetime as dt
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.tools import MODULES

DATES = Path(__file__).with_name("pins.toml")
OLD = dt.timedelta(days=183)
"""Half a year."""


@dataclass(frozen=True)
class Pin:
    """One version that a go.mod pins."""

    folder: str
    version: str
    """Module and version: `sigs.k8s.io/kwok v0.8.0`."""
    released: dt.date
    kept: str
    """Why it stays; empty where nothing is said."""


def pins() -> Iterator[Pin]:
    """Those whose dates are known."""
    for folder, told in tomllib.loads(DATES.read_text(encoding="utf-8")).items():
        kept = str(told.pop("kept", ""))
        for version, released in told.items():
            yield Pin(folder, version, released, kept)


def pinned(folder: str) -> str:
    """Text of the go.mod in a folder."""
    return (MODULES / folder / "go.mod").read_text(encoding="utf-8")


def aged(known: list[Pin], today: dt.date) -> list[str]:
    """A line for each that is older than half a year, the oldest first."""
    old = sorted((pin for pin in known if today - pin.released > OLD), key=lambda pin: pin.released)
    return [
        f"tests/cluster/{pin.folder}/go.mod: {pin.version} is of {pin.released}, {(today - pin.released).days // 30} months old; "
        + (f"kept: {pin.kept}" if pin.kept else "look for a newer one")
        for pin in old
    ]
