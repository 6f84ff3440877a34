"""The forms that people open issues with are ones that GitHub accepts, and they ask for what an answer needs."""

from pathlib import Path
from typing import Any

import pytest

from adapter_api.document import read
from tests.support.repository import REPOSITORY

FORMS = sorted(path for path in (REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
KINDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}
"""https://docs.github.com/en/communities/using-templates-to-encourage-useful-issues-and-pull-requests/syntax-for-githubs-form-schema"""


def form(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read(path).data
    return found


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_the_shape_that_github_accepts(path: Path) -> None:
    found = form(path)
    assert found["name"]
    assert found["description"]
    asked = [each for each in found["body"] if each["type"] != "markdown"]
    assert {each["type"] for each in found["body"]} <= KINDS
    assert len({each["id"] for each in asked}) == len(asked)
    assert all(each["attributes"]["label"] for each in asked)
    assert all(each["attributes"]["options"] for each in asked if each["type"] == "dropdown")
    assert any(each.get("validations", {}).get("required") for each in asked)


def test_a_fault_is_reported_with_its_version_and_without_credentials() -> None:
    fields = {
        each["id"]: each for each in form(REPOSITORY / ".github/ISSUE_TEMPLATE/fault.yml")["body"] if "id" in each
    }
    assert fields["version"]["validations"]["required"] is True
    assert all("Without credentials" in fields[name]["attributes"]["description"] for name in ("job", "logs"))
