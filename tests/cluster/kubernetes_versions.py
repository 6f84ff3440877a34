"""The Kubernetes versions that the control plane can be: the newest, and an old one that is still supported."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

KUBERNETES = "kubernetes"
"""Folder of the go.mod that pins the newest; it stands for the chosen one where programs are listed."""
FOLDERS = {"1.37": KUBERNETES, "1.34": "kubernetes_1_34"}
"""Minor version -> folder of the go.mod that pins it, the newest first."""
VARIABLE = "KUBERNETES"


@dataclass(frozen=True)
class Kubernetes:
    """One version of it."""

    folder: str
    """Where its go.mod is."""
    version: str
    """As the server says it: v1.37.2."""


def chosen(environment: Mapping[str, str] = os.environ) -> Kubernetes:
    """The version that the variable KUBERNETES names by its minor version; without it the newest.

    Raises:
        ClusterError: no go.mod pins it.
    """
    minor = environment.get(VARIABLE) or next(iter(FOLDERS))
    if minor not in FOLDERS:
        raise ClusterError(f"{VARIABLE}={minor}: no such version is pinned here; choose one of {', '.join(FOLDERS)}")
    return Kubernetes(FOLDERS[minor], _pinned(FOLDERS[minor]))


def _pinned(folder: str) -> str:
    text = Path(__file__).with_name(folder).joinpath("go.mod").read_text(encoding="utf-8")
    found = re.search(r"^\tk8s\.io/kubernetes (v\S+)", text, re.MULTILINE)
    if found is None:
        raise ClusterError(f"{folder}/go.mod pins no k8s.io/kubernetes")
    return found[1]
