"""What a test needs of an API server, be it a real one or its stand-in; and one that tests share."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.operator.support.stand_in.plane import StandIn

STAND_IN, CONTROL_PLANE = "stand-in", "control-plane"
MARKS: dict[str, tuple[pytest.MarkDecorator, ...]] = {
    STAND_IN: (pytest.mark.process,),
    CONTROL_PLANE: (pytest.mark.cluster,),
}
"""Of tests, by the plane that they run on."""


only_on_control_plane = pytest.mark.parametrize(
    "plane", [pytest.param(CONTROL_PLANE, marks=MARKS[CONTROL_PLANE])], indirect=True
)
"""For tests of what the stand-in leaves out, or of what costs the more the less it tells there."""


class Plane(Protocol):
    """Serves until its fixture ends it."""

    @property
    def kubeconfig(self) -> Path:
        """Of a user who may do everything."""

    @property
    def certificates(self) -> Path | None:
        """A folder with `ca.crt`, `admin.crt` and `admin.key`; None where plain HTTP is spoken."""


def address_of(plane: Plane) -> str:
    """Of its API server."""
    return str(json.loads(plane.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])


@pytest.fixture(scope="session", params=[pytest.param(name, marks=marks) for name, marks in MARKS.items()])
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """The API server stand-in, then the real one: use a namespace of your own."""
    if request.param == CONTROL_PLANE:
        yield request.getfixturevalue("control_plane")
        return
    stand_in = StandIn(tmp_path_factory.mktemp("stand-in"))
    stand_in.start()
    yield stand_in
    stand_in.stop()
