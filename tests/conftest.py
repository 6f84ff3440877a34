"""Settings of the whole suite: property tests try the same examples everywhere, untimed; one control plane for those that ask."""

from hypothesis import settings

from tests.cluster.fixtures import cluster_tools, control_plane, pytest_collection_finish, pytest_configure

__all__ = ["cluster_tools", "control_plane", "pytest_collection_finish", "pytest_configure"]

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
