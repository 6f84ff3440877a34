"""Pins of other people's programs: each has a date, and the old ones are named."""

import datetime as dt

import pytest

from tests.cluster.__main__ import run
from tests.cluster.pins import Pin, aged, pinned, pins
from tests.cluster.tools import MODULES

TODAY = dt.date(2026, 12, 1)


def test_every_go_mod_has_a_dated_pin_and_every_dated_pin_is_what_its_go_mod_says() -> None:
    known = list(pins())
    assert {pin.folder for pin in known} == {file.parent.name for file in MODULES.glob("*/go.mod")}
    for pin in known:
        assert f"\t{pin.version}" in pinned(pin.folder), (
            f"pins.toml: {pin.version} is not what {pin.folder}/go.mod pins"
        )
        assert pin.released <= dt.datetime.now(dt.UTC).date(), pin


def test_what_is_older_than_six_months_is_named_oldest_first_with_why_it_is_kept() -> None:
    known = [
        Pin("new", "a.example/new v1.0.0", dt.date(2026, 8, 1), ""),
        Pin("old", "a.example/old v0.9.0", dt.date(2026, 5, 1), ""),
        Pin("older", "a.example/older v0.1.0", dt.date(2025, 12, 1), "the last one that compiles"),
    ]
    assert aged(known, TODAY) == [
        "tests/cluster/older/go.mod: a.example/older v0.1.0 is of 2025-12-01, 12 months old; kept: the last one that compiles",
        "tests/cluster/old/go.mod: a.example/old v0.9.0 is of 2026-05-01, 7 months old; look for a newer one",
    ]


def test_the_command_names_the_pin_that_is_old_on_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pins"]) == 0
    assert "k8s.io/kubernetes v1.34.4 is of 2026-02-10" in capsys.readouterr().out
