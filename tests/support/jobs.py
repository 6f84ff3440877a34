"""Jobs as plain data, as a user would write them."""

import json
from typing import Any

from adapter_api.document import read
from tests.support.repository import DIGITS

Plain = dict[str, Any]


def quickstart(name: str, **spec: Any) -> Plain:
    """Return the smallest job, configs/digits.yaml, under another name, with these fields of its specification replaced."""
    job: Plain = json.loads(json.dumps(read(DIGITS).data))
    job["metadata"]["name"] = name
    job["spec"] |= spec
    return job
