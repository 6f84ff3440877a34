"""The repository keeps its own rules: nothing in it ties it to one machine, and everything it installs is pinned."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.repository import REPOSITORY, repository_files

LOCKS = ("requirements.txt", "requirements/bootstrap.txt", "requirements/dev.txt", "requirements/operator.txt")
FILES = repository_files()
MODULES = [path for path in FILES if path.suffix == ".py"]


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def locked(name: str) -> dict[str, str]:
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==(\S+)", (REPOSITORY / name).read_text(), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in pins}


def test_no_file_names_a_package_index_or_a_developers_machine() -> None:
    forbidden = re.compile(
        r"--(?:extra-)?index" r"-url[ =]|--find" r"-links[ =]|pypi\." r"org/simple|file:///(?:home|root|work)"
        r"|/(?:home/[a-z]|root/\.|work/main)"
    )  # fmt: skip
    found = [
        f"{relative(path)}: {line.strip()[:80]}"
        for path in FILES
        if path.stat().st_size < 2**20 and path.suffix not in {".png", ".npy", ".safetensors"}
        for line in path.read_text(errors="replace").splitlines()
        if forbidden.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_a_version_and_hashes(name: str) -> None:
    text = (REPOSITORY / name).read_text().replace("\\\n", " ")
    packages = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert packages
    assert [line[:60] for line in packages if "==" not in line or "--hash=sha256:" not in line] == []


def extras() -> dict[str, list[str]]:
    """What the project asks for, by extra; what it needs always is under no name."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def test_the_locks_hold_everything_that_the_project_asks_for() -> None:
    """The extra `gpu` is for machines that have one, so tests run without it."""
    stale = []
    for extra, asked in extras().items():
        pins = locked("requirements.txt" if extra == "gpu" else "requirements/dev.txt")
        wanted = [Requirement(text) for text in asked]
        stale += [
            str(each) for each in wanted if not each.specifier.contains(pins.get(canonicalize_name(each.name), "0"))
        ]
    assert stale == [], "run make lock"


def test_every_lock_agrees_with_the_one_that_tests_run_with() -> None:
    gpu = {canonicalize_name(Requirement(text).name) for text in extras()["gpu"]}
    tested = locked("requirements/dev.txt")
    for name in ("requirements.txt", "requirements/operator.txt"):
        pins = {package: pin for package, pin in locked(name).items() if package not in gpu}
        assert {package: tested.get(package) for package in pins} == pins


def test_the_licence_is_there_in_full() -> None:
    text = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    documented = set(re.findall(r"^([a-z][a-z0-9-]*):.*## \S", makefile, re.MULTILINE))
    assert targets == documented


def test_every_module_opens_by_saying_what_it_is_for() -> None:
    opening = {relative(path): (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines() for path in MODULES}
    # A first line that breaks off goes on in the second.
    whole = (".", ":", ";", ",", "?")
    assert [name for name, lines in opening.items() if not lines or not (lines[0].endswith(whole) or lines[1:])] == []


def test_no_test_module_imports_another() -> None:
    taken = re.compile(r"^from tests\.(?:\w+\.)*(?:test_\w+|conftest) import", re.MULTILINE)
    assert [
        relative(path) for path in MODULES if path.name.startswith("test_") and taken.search(path.read_text())
    ] == []


def test_what_tests_share_lies_in_support_folders() -> None:
    programs = ("tests/cluster/",)  # what starts clusters is run by people too
    stray = [
        name
        for name in map(relative, MODULES)
        if name.startswith("tests/") and "/support/" not in name and not name.startswith(programs)
        and not re.fullmatch(r"(?:test_\w+|conftest)\.py", name.rpartition("/")[2])
    ]  # fmt: skip
    assert stray == []


def test_the_operators_folder_does_not_shadow_the_standard_library() -> None:
    assert not (REPOSITORY / "operator" / "__init__.py").exists()


def test_images_get_every_folder_of_packages() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    folders = project["tool"]["setuptools"]["packages"]["find"]["where"]
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    let_through = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert folders
    for folder in folders:
        assert f"COPY {folder} {folder}" in dockerfile
        assert f"!{folder}" in let_through
