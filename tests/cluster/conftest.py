"""What every test of the test cluster shares."""

import pytest

from tests.cluster.fixtures import cluster_tools, control_plane

__all__ = ["cluster_tools", "control_plane"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "cluster: needs a Kubernetes control plane, which it builds and starts if need be"
    )
