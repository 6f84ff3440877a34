"""What the benchmark of the start compares, and how it reads the memory of a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import start
from benchmarks.older_build import environment, older_build
from benchmarks.quickstart import ROOT


@pytest.mark.process
def test_a_commit_that_is_not_in_the_clone_is_named_with_the_remedy() -> None:
    commit = "0" * 40
    with (
        pytest.raises(RuntimeError, match=f"commit {commit}.* is not in this clone.*git fetch --unshallow"),
        older_build(commit),
    ):
        pass


@pytest.mark.process
def test_an_older_build_is_gone_afterwards() -> None:
    with older_build("HEAD") as place:
        assert (place / "cli" / "atj" / "main.py").is_file()
    assert not place.exists()
    listed = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert str(place) not in listed


@pytest.mark.process
def test_a_build_s_packages_come_before_the_installed_ones(tmp_path: Path) -> None:
    (tmp_path / "cli" / "atj").mkdir(parents=True)
    (tmp_path / "cli" / "atj" / "__init__.py").write_text("")
    command = [sys.executable, "-c", "import atj; print(atj.__file__)"]
    found = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()) == tmp_path / "cli" / "atj" / "__init__.py"


def test_builds_run_in_turn() -> None:
    builds = (Path("old"), Path("new"))
    order: list[Path] = []

    def run(build: Path) -> str:
        order.append(build)
        return build.name

    assert start.alternately(builds, 2, run) == (["old"] * 2, ["new"] * 2)
    assert order == [*builds, *builds]


def test_the_peak_of_a_process_is_at_least_what_it_has_now() -> None:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert start.peak_of(os.getpid()) >= resident
