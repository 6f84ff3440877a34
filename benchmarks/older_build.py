"""An older build of this repository beside this one, to run the same measurement with both."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.quickstart import ROOT

COMMIT = "35743aa"
"""The last commit before commands were imported late and trainers were started early."""
_SOURCES = ("api", "operator", "trainer", "agent", "cli", "")


@contextmanager
def older_build(commit: str = COMMIT) -> Iterator[Path]:
    """The repository as it was at a commit, in a folder that lasts as long as the context.

    Raises:
        RuntimeError: this clone does not hold the commit.
    """
    if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise RuntimeError(
            f"commit {commit}, which this is compared with, is not in this clone; a shallow one gets it by "
            "`git fetch --unshallow`"
        )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / commit
        added = _git("worktree", "add", "--detach", str(place), commit)
        if added.returncode:
            raise RuntimeError(f"git worktree add: {added.stderr.strip()}")
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def environment(root: Path) -> dict[str, str]:
    """This process's environment, with the packages of the repository at `root` before those that are installed."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(root / folder) for folder in _SOURCES)}


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
