"""The operator, which raises at one step for each of some jobs: `python -m tests.operator.support.stumbling_operator`.

A job whose name is stumbles-<step> makes that step raise.
"""

import sys
from collections.abc import Callable
from typing import Any

from adapter_operator import __main__ as program
from adapter_operator import leader, reconcile
from adapter_operator.act.actor import Actor
from adapter_operator.cluster import Cluster
from adapter_operator.observe.cache import Cache
from adapter_operator.observe.untold import Untold
from adapter_operator.tell import job_status
from adapter_operator.tell.pacing import Pacing

Step = Callable[..., Any]
UNTOLD = ("put-job", "untold", "apply-status", "status-of")
"""Steps without which nothing can be said on the job."""
STEPS: dict[str, tuple[object, str]] = {
    "put-job": (Cache, "put_job"), "untold": (Untold, "told"), "apply-status": (Cluster, "apply_status"),
    "status-of": (reconcile, "status_of"), "validated": (reconcile, "_validated"), "observed": (Cache, "observed"),
    "decide": (reconcile, "decide"), "status": (job_status, "status"), "wait": (Pacing, "wait"),
    "launch": (Actor, "launch"), "announce": (Actor, "announce"), "pod": (leader, "pod_of"), "put-pod": (Cache, "put_pod"),
    "events": (reconcile, "events"), "create": (Cluster, "create"),
}  # fmt: skip


class Stumbled(Exception):  # noqa: N818 - it reads as the fact that it states
    """What no code foresees."""


def stumbling(step: str, original: Step, *, is_method: bool) -> Step:
    """The step, which raises if it is about the job that is named by it."""
    name = f"stumbles-{step}"

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if name in repr(arguments[is_method:]):  # what a method is of knows of every job
            raise Stumbled(f"at {step}\x1b[2J")
        return original(*arguments, **options)

    return wrapped


def main() -> int:
    """Runs the program, whose steps raise."""
    for step, (owner, attribute) in STEPS.items():
        setattr(owner, attribute, stumbling(step, getattr(owner, attribute), is_method=isinstance(owner, type)))
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
