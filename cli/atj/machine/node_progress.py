"""What a node's agent says of its progress."""

import http.client
import json
from pathlib import Path

from pydantic import ValidationError

from adapter_api.layout import ADDRESS_FILE, AGENT_FOLDER
from adapter_api.progress import MAX_PROGRESS_BYTES, Progress
from atj.loopback import fetch


def read_progress(work: Path) -> Progress | None:
    """The answer of the agent of a work folder; None while it gives none."""
    try:
        url = json.loads((work / AGENT_FOLDER / ADDRESS_FILE).read_bytes())["url"]
        return Progress.model_validate_json(fetch(f"{url}/progress", MAX_PROGRESS_BYTES))
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, ValidationError):
        return None
