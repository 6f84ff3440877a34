"""Settings of the whole suite: tiers, order, no hub, the same examples of property tests everywhere, one control plane."""

import os
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from adapter_trainer.beginning import uncollected
from tests.cluster.fixtures import cluster_tools, control_plane, pytest_collection_finish
from tests.support.processes import no_process_unless_marked
from tests.support.progress import Progress

__all__ = ["cluster_tools", "control_plane", "no_process_unless_marked", "pytest_collection_finish"]

# Before anything imports the hub's client, here or in a process that a test starts: no test depends on a network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Threads of several processes would fight over the cores: before torch is imported, here or there.
os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

LONGEST = (
    "cli/machine/test_run.py", "trainer/forecast/test_footprint.py", "agent/test_crash_matrix.py", "trainer/model/test_sharding.py",
    "agent/test_process.py", "cli/storage/test_embedded_store.py", "agent/checkpoints/test_unconditional.py", "cli/machine/test_run_stored.py",
    "cli/machine/test_run_faults.py", "trainer/forecast/test_flop_count.py", "trainer/sampling/test_evaluation.py", "trainer/data/cache/test_cache.py",
    "trainer/training/test_resume.py", "agent/checkpoints/test_fetch.py", "cli/results/test_checkpoint_commands.py", "operator/test_users_edits.py",
    "operator/test_processes.py", "cli/cluster/test_cluster_commands.py", "house/test_pasted.py",
)  # fmt: skip
"""Modules that take longest, which a run begins with: none is then left for one worker at the end."""


@pytest.fixture(scope="session", autouse=True)
def _temporary_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let what tests, and processes that they kill, leave in the folder for temporary files go with pytest's own folders."""
    # Matplotlib looks through all fonts of the machine where this folder is new.
    os.environ.setdefault("MPLCONFIGDIR", str(Path(tempfile.gettempdir()) / f"matplotlib-{os.getuid()}"))
    os.environ["TMPDIR"] = tempfile.tempdir = str(tmp_path_factory.mktemp("t"))


def pytest_configure(config: pytest.Config) -> None:
    """Report file by file, unless pytest is asked for more or less."""
    if config.get_verbosity() == 0 and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while modules are imported, nor later among them: it takes a third of the time of a start."""
    with uncollected():
        return (yield)


MARKERS = {
    "atj": ("process",), "control_plane": ("cluster",), "cluster_tools": ("cluster",), "small_disk": ("process", "root"),
}  # fmt: skip
"""What a fixture needs, every test that asks for it needs too."""


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test by what its fixtures need."""
    for fixture, markers in MARKERS.items():
        if fixture in getattr(item, "fixturenames", ()):
            for marker in markers:
                item.add_marker(marker)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest, and leave out what needs root where the user is another."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0].removeprefix("tests/"), len(places)))
    if os.geteuid() != 0:
        left_out = [item for item in items if item.get_closest_marker("root")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
