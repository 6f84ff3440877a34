"""The one error that the test cluster raises for what its user can mend."""


class ClusterError(RuntimeError):
    """Says which part failed, why, and what to do next."""
