"""The job on digits, with data that is there already: what several sections measure with."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapter_api.document import read
from adapter_api.job import AdapterTrainingJob
from demo import digits

ROOT = Path(__file__).parent.parent


@contextmanager
def local_job() -> Iterator[dict[str, Any]]:
    """configs/digits.yaml with its data in a local folder, which lasts as long as the context."""
    job = read(ROOT / "configs" / "digits.yaml").data
    AdapterTrainingJob.model_validate(job)
    job = json.loads(json.dumps(job))
    with tempfile.TemporaryDirectory() as folder:
        digits.write(Path(folder), digits.load()[0])
        del job["spec"]["data"]
        job["spec"]["training"]["data"]["params"]["data_root_path"] = folder
        yield job
