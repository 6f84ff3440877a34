"""One place that catches what an object of somebody else's may raise: the others must not notice."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from adapter_operator import metrics

Plain = dict[str, Any]
Taken = TypeVar("Taken")
MAX_NAME = 253

log = logging.getLogger(__name__)


def taken(take: Callable[[Plain], Taken], raw: Plain) -> Taken | None:
    """What is made of an object that a list or a watch shows; None, and a line in the log, if nothing can be.

    The next change of the object, or the next list, shows it again.
    """
    try:
        return take(raw)
    except Exception:
        metrics.unreadable.inc()
        log.exception("an object cannot be read, and is left out: %s", name_of(raw))
        return None


def name_of(raw: object) -> str:
    """Kind, namespace and name of an object, as far as it has them."""
    found: Plain = raw if isinstance(raw, dict) else {}
    given = found.get("metadata")
    metadata: Plain = given if isinstance(given, dict) else {}
    parts = (found.get("kind"), metadata.get("namespace"), metadata.get("name"))
    return "/".join(part[:MAX_NAME] for part in parts if isinstance(part, str)) or "one without a name"
