"""pytest plugin for tests that need an API server, controllers and a scheduler, but no real pods."""

from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.cluster.tools import TESTED_WITH, Tools, default_cache


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile what the chosen tests need before the first of them: a first build outlasts a test's time limit."""
    needed = any(item.get_closest_marker("cluster") for item in session.items)
    if needed and not session.config.option.collectonly:
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            try:
                Tools(default_cache()).build(TESTED_WITH)
            except ClusterError as error:
                raise pytest.UsageError(f"{error}; without these tests: -m 'not cluster'") from error


@pytest.fixture(scope="session")
def cluster_tools() -> Tools:
    """The cluster's programs, compiled before the first test."""
    return Tools(default_cache())


@pytest.fixture(scope="session")
def control_plane(cluster_tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One control plane with three fake nodes for the whole session: use a namespace of your own."""
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"), cluster_tools, fake_nodes=3)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
