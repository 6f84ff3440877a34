"""Settings of the whole suite: property tests try the same examples on every machine, and are not timed."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
