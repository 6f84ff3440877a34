"""Other people's controllers beside a control plane: manifests of the version that is compiled, webhooks reached by address."""

import base64
import datetime as dt
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.certificates import Authority
from tests.cluster.errors import ClusterError
from tests.cluster.tools import MODULES

Plain = dict[str, Any]


def source(folder: str, module: str) -> Path:
    """Where a Go module lies, in the version that the go.mod in `folder` pins; its manifests are there.

    Raises:
        ClusterError: it has not been fetched.
    """
    listed = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", module],
        cwd=MODULES / folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        raise ClusterError(f"the module {module} is not there: {listed.stderr.strip()}")
    return Path(listed.stdout.strip())


def serving_certificate(authority: Path, serving: Path) -> bytes:
    """Writes tls.crt and tls.key for 127.0.0.1 to a new folder `serving`; returns the certificate of who signed them."""
    signer = Authority(authority, dt.datetime.now(dt.UTC))
    issued = signer.issue("webhooks", names=["127.0.0.1"])
    serving.mkdir(parents=True)
    shutil.copy(issued.certificate, serving / "tls.crt")
    shutil.copy(issued.key, serving / "tls.key")
    return signer.file.read_bytes()


def by_address(file: Path, names: Mapping[str, str], port: int, bundle: bytes) -> list[Plain]:
    """Webhook configurations of a manifest, two for each: an empty one that its controller looks after, and one that serves.

    Args:
        file: The manifest.
        names: `Mutating` or `Validating` -> name of the configuration whose bundle the controller insists on writing.
        port: Where the webhooks listen, on 127.0.0.1.
        bundle: By which they are trusted.
    """
    found: list[Plain] = []
    for each in filter(None, yaml.safe_load_all(file.read_text(encoding="utf-8"))):
        name = next(name for kind, name in names.items() if each["kind"].startswith(kind))
        found.append({**each, "metadata": {"name": name}, "webhooks": []})
        for webhook in each["webhooks"]:
            address = f"https://127.0.0.1:{port}{webhook['clientConfig']['service']['path']}"
            webhook["clientConfig"] = {"url": address, "caBundle": base64.b64encode(bundle).decode()}
        found.append({**each, "metadata": {"name": f"by-address-{name}"}})
    return found


def listed(items: Sequence[Plain]) -> str:
    """Several objects as one, for kubectl."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
