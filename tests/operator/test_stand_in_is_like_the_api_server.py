"""The API server stand-in answers as the real API server does: the same calls are made to both, and the answers compared.

What differs by nature is left out before: uids, times, and versions other than by whether they have changed.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.support import controller_topics, kind_topics, topics
from tests.operator.support.on_plane import OnPlane
from tests.operator.support.stand_in.plane import StandIn
from tests.operator.support.talk import Talk

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def both(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Talk, Talk]]:
    """The stand-in's, and the real one's."""
    stand_in = StandIn(tmp_path_factory.mktemp("stand-in"))
    stand_in.start()
    stand_in.forget()
    folder: Path = tmp_path_factory.mktemp("places")
    places = [OnPlane(plane, "both", folder) for plane in (stand_in, control_plane)]
    yield Talk(places[0]), Talk(places[1])
    for place in places:
        place.close()
    stand_in.stop()


@pytest.mark.parametrize(
    "topic",
    [
        topics.creation,
        kind_topics.discovery,
        topics.versions_and_generations,
        topics.status_as_a_subresource,
        topics.apply_and_owners,
        topics.apply_of_objects,
        topics.lists_and_selectors,
        topics.watches,
        controller_topics.deletion,
        topics.leases_and_events,
        kind_topics.new_events,
        controller_topics.jobs_and_pods,
    ],
    ids=lambda topic: topic.__name__,
)
def test_both_answer_alike(both: tuple[Talk, Talk], topic: Callable[[Talk], topics.Facts]) -> None:
    stand_in, real = (list(topic(talk)) for talk in both)
    for number, (played, true) in enumerate(zip(stand_in, real, strict=True)):
        assert played == true, f"fact {number} of {topic.__name__}"
    assert len(real) > 4 or topic is topics.watches
