"""End-to-end tests: a real cluster, the images from the Dockerfile, the chart, an S3 server, and what clusters do to pods.

They are collected only when they are asked for (`make e2e`): they build images and take a quarter of an hour.
"""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.__main__ import default_folder, up
from tests.cluster.kubelet_cluster import KubeletCluster
from tests.cluster.tools import KUBELET, Tools, default_cache
from tests.e2e.support.world import World

BUILT = pytest.StashKey[dict[str, str]]()
"""Identity of each image, by its name."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = any("e2e" in str(argument) for argument in config.invocation_params.args)
    return None if asked else collection_path.suffix == ".py" or None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build images and cluster before the first test: on a slow machine they outlast its time limit."""
    if session.config.option.collectonly or not any(item.get_closest_marker("e2e") for item in session.items):
        return
    with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        session.config.stash[BUILT] = {
            images.OPERATOR: images.build(images.OPERATOR, "operator"),
            # There is no GPU in the test cluster: the image is a gigabyte smaller without triton, a start a second shorter.
            images.TRAINER: images.build(images.TRAINER, "trainer", WITHOUT="triton bitsandbytes"),
            images.STORE: images.store(Path(sysconfig.get_path("scripts")) / "weed"),
        }
        Tools(default_cache()).build(KUBELET)


@pytest.fixture(scope="session")
def world(pytestconfig: pytest.Config) -> Iterator[World]:
    """The cluster with the operator installed and an S3 server that holds the digits."""
    tools, folder = Tools(default_cache()), default_folder()
    up(folder, tools, "kubelet", 0)
    cluster = KubeletCluster(folder, tools, die_with_caller=False)
    world = World(cluster, folder)
    world.load(pytestconfig.stash[BUILT])
    world.install()
    yield world
    world.collect()
