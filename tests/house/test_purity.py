"""What says that it is pure is held to it: import-linter knows every such module."""

import tomllib

from tests.support.repository import REPOSITORY

PACKAGES = ("api", "operator", "trainer", "agent", "cli")


def test_every_module_that_opens_with_pure_is_in_the_contract() -> None:
    says = sorted(
        path.relative_to(REPOSITORY / package).with_suffix("").as_posix().replace("/", ".")
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        if path.read_text(encoding="utf-8").startswith('"""PURE:')
    )
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    [held] = [each["source_modules"] for each in contracts if "PURE:" in each["name"]]
    assert says
    assert sorted(held) == says
