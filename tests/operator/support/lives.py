"""A job's life, led as a cluster would lead it, and all about it that must not depend on what went wrong meanwhile."""

from collections.abc import Callable, Sequence

from tests.operator.support.on_plane import PREEMPTED, SUCCEEDED, OnPlane, Plain, Process

STATIONS = 5
LEFT = "pods,jobs,services,configmaps,networkpolicies"


class Life:
    """It runs, loses a pod to preemption, runs again, and succeeds.

    Args:
        place: Where.
        name: Of the job, which is created here.
    """

    def __init__(self, place: OnPlane, name: str) -> None:
        self._place, self.name = place, name
        self.reached: set[str] = set()
        """Of its stations (running, failed, again, succeeded, complete) those where it has been."""
        place.create(name)

    def step(self) -> bool:
        """Looks, does what is due, and returns whether the life is over."""
        status = self._place.status(self.name)
        state, attempt = status.get("state"), status.get("attempt", 0)
        if state == "Complete":
            self.reached.add("complete")
        if state == "Running" and attempt == 1 and "failed" not in self.reached:
            self.reached.add("running")
            if pods := self._place.pods(self.name, 1):
                self._place.set_pod(pods[0]["metadata"]["name"], PREEMPTED)
                self.reached.add("failed")
        if state == "Running" and attempt == 2 and "succeeded" not in self.reached:
            self.reached.add("again")
            for pod in self._place.pods(self.name, 2):
                self._place.set_pod(pod["metadata"]["name"], SUCCEEDED)
            self.reached.add("succeeded")
        return "complete" in self.reached


def lead(place: OnPlane, names: Sequence[str], between: Callable[[Sequence[Life]], None] | None = None, seconds: float = 300) -> list[Plain]:  # fmt: skip
    """The ends of lives that are led at the same time.

    Args:
        place: With at least one operator. One that has ended is started again, as a kubelet would.
        names: Of the jobs.
        between: Called between two steps, to do harm.
        seconds: Until it is taken for stuck.
    """
    lives = [Life(place, name) for name in names]

    def step() -> bool:
        revive(place)
        are_over = [life.step() for life in lives if "complete" not in life.reached]
        if between is not None:
            between(lives)
        return all(are_over)

    place.wait("all complete", step, seconds)
    ends = [seen(place, name) for name in names]
    assert not place.history.faults
    return ends


def revive(place: OnPlane) -> None:
    """What a kubelet does with operators that have ended."""
    for process in [each for each in place.running if each.poll() is not None]:
        place.running.remove(process)
        place.start()


def clear(place: OnPlane, name: str) -> None:
    """Deletes a job; all that it owned goes, whether or not an operator runs."""
    place.delete("adaptertrainingjobs", name)
    place.wait(f"nothing left of {name}", lambda: not place.items_of(name, LEFT))
    place.history.forget(name)


def seen(place: OnPlane, name: str) -> Plain:
    """Everything about a job that must not depend on faults."""
    status = place.status(name)
    return {
        "state": status["state"],
        "attempt": status["attempt"],
        "restarts": status["restarts"],
        "failure": {key: status["lastFailure"].get(key) for key in ("reason", "attempt", "charged")},
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status["conditions"]],
        "objects": sorted(
            (each["kind"], str(each["metadata"]["labels"].get("adaptertraining.dev/attempt")))
            for each in place.items_of(name, LEFT)
        ),
    }


UNDISTURBED: Plain = {
    "state": "Complete",
    "attempt": 2,
    "restarts": {"charged": 0, "uncharged": 1, "total": 1},
    "failure": {"reason": "Preempted", "attempt": 1, "charged": False},
    "conditions": [
        ("Accepted", "True", "Valid"), ("Running", "False", "Complete"), ("Complete", "True", "Complete"),
        ("Ready", "True", "Complete"),
    ],
    "objects": [
        ("configmaps", "None"), ("jobs", "2"), ("networkpolicies", "None"), ("pods", "2"), ("pods", "2"),
        ("services", "None"),
    ],
}  # fmt: skip
"""How a life ends without faults; test_crash_points shows it."""


def has_ended(process: Process) -> bool:
    """Whether an operator's process is over."""
    return process.poll() is not None
