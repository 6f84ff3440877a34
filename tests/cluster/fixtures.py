"""pytest plugin for tests that need an API server, controllers and a scheduler, but no real pods."""

from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.tools import CONTROL_PLANE, Tools, default_cache


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "cluster: needs a Kubernetes control plane, built and started if need be")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the chosen tests need before the first of them: a first build outlasts a test's time limit."""
    tools = Tools(default_cache())
    needed = any("cluster_tools" in getattr(item, "fixturenames", ()) for item in session.items)
    if needed and not session.config.option.collectonly and tools.can_provide(CONTROL_PLANE):
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            tools.build((*CONTROL_PLANE, "helm"))


@pytest.fixture(scope="session")
def cluster_tools() -> Tools:
    """The cluster's programs; skips when they are neither built nor can be."""
    tools = Tools(default_cache())
    if not tools.can_provide(CONTROL_PLANE):
        pytest.skip("the control plane's programs are not built, and there is no Go to build them")
    return tools


@pytest.fixture(scope="session")
def control_plane(cluster_tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One control plane with three fake nodes for the whole session: use a namespace of your own."""
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"), cluster_tools, fake_nodes=3)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
