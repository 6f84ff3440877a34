"""PURE: moments, held to what a datetime can hold: users and their clusters may write any."""

from datetime import UTC, datetime, timedelta

LATEST = datetime.max.replace(tzinfo=UTC)


def later(moment: datetime, seconds: float) -> datetime:
    """A moment some seconds later, or the last one there is."""
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return LATEST
