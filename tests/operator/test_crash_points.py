"""The operator is killed before and after each of its writes; whoever follows ends where an undisturbed one would.

Oracle: the job's status (times apart), the objects that exist, and the count of restarts are those of a run without faults;
at no time were two attempts alive, or two pods made for one place.
"""

import itertools
from collections.abc import Iterator

import pytest

from tests.operator.support import lives
from tests.operator.support.crashing_operator import CODE
from tests.operator.support.on_plane import OnPlane
from tests.operator.support.planes import CONTROL_PLANE, MARKS, STAND_IN, Plane

WRITES = 11
"""Of one life: launch 3, name 1, running 1, restart 4 with the next launch, running 1, complete 1."""
SOME = ((1, "before"), (6, "after"), (11, "after"))
"""The first, one amid a restart, the last: these on the stand-in, too, where the others would cost more than they tell."""
ALL = tuple(itertools.product(range(1, WRITES + 1), ("before", "after")))
POINTS = [
    pytest.param(plane, write, when, id=f"{plane}-{write}-{when}", marks=MARKS[plane])
    for plane, points in ((STAND_IN, SOME), (CONTROL_PLANE, ALL))
    for write, when in points
]


@pytest.fixture(scope="module")
def place(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    place = OnPlane(plane, "crash-points", tmp_path_factory.mktemp("crash-points"))
    yield place
    place.close()


def test_the_undisturbed_life_is_what_the_others_are_compared_with(place: OnPlane) -> None:
    operator = place.start(is_preloaded=False)
    assert lives.lead(place, ["undisturbed"]) == [lives.UNDISTURBED]
    assert operator.poll() is None
    place.stop()
    lives.clear(place, "undisturbed")


@pytest.mark.parametrize(("plane", "write", "when"), POINTS, indirect=["plane"], scope="session")
def test_killed_at_any_write_the_end_is_the_same(place: OnPlane, write: int, when: str) -> None:
    name = f"killed-{write}-{when}"
    operator = place.start("tests.operator.support.crashing_operator", CRASH_AT=str(write), CRASH_WHEN=when)
    ends = lives.lead(place, [name])
    # A crash at the last write may come after the end was seen.
    place.wait(f"write {write}: a life has fewer", lambda: operator.poll() is not None)
    assert operator.poll() == CODE
    place.stop()
    assert ends == [lives.UNDISTURBED]
    lives.clear(place, name)
