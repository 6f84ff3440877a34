"""The mark that a run leaves on every object of its checkpoints: whose it is, of which attempt, and what is in it.

Whatever is deleted or replaced is known by it. An object without one is somebody else's, whatever its name.
"""

import re
from typing import TYPE_CHECKING

from adapter_agent.storage.store import ObjectFacts

if TYPE_CHECKING:
    from adapter_agent.checkpoints.index import Claim

_SHA256, _ATTEMPT, _RUN = "sha256", "attempt", "run"
_NUMBER = re.compile(r"[0-9]{1,18}")


def metadata(claim: "Claim", sha256: str) -> dict[str, str]:
    """The mark as it travels with an object; of a run that an older build has begun, without the run."""
    return {_SHA256: sha256, _ATTEMPT: str(claim.attempt), **({_RUN: claim.run} if claim.run else {})}


def digest_in(found: ObjectFacts) -> str | None:
    """The SHA-256 of an object's content, as its writer has told it."""
    return found.metadata.get(_SHA256)


def attempt_in(found: ObjectFacts, run: str) -> int | None:
    """The attempt of `run` that wrote an object; None for the objects of others, and for those that carry no run."""
    return _attempt(found) if run and found.metadata.get(_RUN) == run else None


def possible_attempt_in(found: ObjectFacts, run: str) -> int | None:
    """The same, where an object may be as an older build wrote it: without the run. For places that are this run's."""
    return _attempt(found) if found.metadata.get(_RUN, run) == run else None


def _attempt(found: ObjectFacts) -> int | None:
    text = found.metadata.get(_ATTEMPT, "")
    return int(text) if _NUMBER.fullmatch(text) else None
