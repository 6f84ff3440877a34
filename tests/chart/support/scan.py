"""`python -m tests.chart.support.scan CHECKOV`: checkov over every rendering; what it finds is explained here, or ends this with 1."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.cluster.tools import Tools, default_cache
from tests.support.repository import CHART, CHART_IMAGES

VALUES = Path(__file__).parent.with_name("values")
NO_CPU_LIMIT = "a limit of CPU time makes probes and Leases late; memory is limited"
BY_TAG = "image.digest pins it; by default the tag of the chart's own version is used"
KEPT_IMAGE = "tags are versions and never move, so that an image that is there is the right one"
ASSIGNED = "with openshift: true the cluster assigns high UIDs; otherwise it is 65532"
ENDS = "it asks once and ends"
EXPLAINED = {
    **{("CKV_K8S_11", part): NO_CPU_LIMIT for part in ("operator", "webhook", "test")},
    **{("CKV_K8S_43", part): BY_TAG for part in ("operator", "webhook", "test")},
    **{("CKV_K8S_15", part): KEPT_IMAGE for part in ("operator", "webhook", "test")},
    ("CKV_K8S_38", "operator"): "it speaks with the API server, by rights that tests/chart/test_chart.py lists",
    ("CKV_K8S_8", "test"): ENDS,
    ("CKV_K8S_9", "test"): ENDS,
    **{("CKV_K8S_40", part): ASSIGNED for part in ("operator", "webhook", "test")},
    ("CKV_K8S_21", "operator"): "the table of one namespace needs one that every cluster has, for the dry run",
}
"""Finding and part of the chart -> why it stays."""

Plain = dict[str, Any]


def render(helm: Path, values: Path, folder: Path) -> None:
    """One rendering as a file; the CRD has no pods, and takes most of a scan's time."""
    command = [str(helm), "template", "ato", str(CHART), "-n", "ato-system", "--kube-version", "1.34.4", *CHART_IMAGES]
    done = subprocess.run([*command, "-f", str(values), "--set", "crd.install=false"], check=True, capture_output=True)
    (folder / values.name).write_bytes(done.stdout)


def findings(checkov: Path, folder: Path) -> list[Plain]:
    """What checkov holds against the files of a folder; it asks nobody on the network."""
    options = ["--framework", "kubernetes", "--compact", "--quiet", "--skip-download", "--soft-fail", "-o", "json"]
    done = subprocess.run([str(checkov), "-d", str(folder), *options], check=True, capture_output=True, text=True)
    return list(json.loads(done.stdout)["results"]["failed_checks"])


def part_of(finding: Plain) -> str:
    """The part of the chart that a finding is about."""
    return next((part for part in ("webhook", "test") if finding["resource"].endswith(f"-{part}")), "operator")


def main(checkov: Path) -> int:
    """0 if each finding is explained, and each explanation is needed."""
    helm = Tools(default_cache()).path("helm")
    with tempfile.TemporaryDirectory() as name:
        for values in sorted(VALUES.glob("*.yaml")):
            render(helm, values, Path(name))
        found = findings(checkov, Path(name))
    seen = {(each["check_id"], part_of(each)) for each in found}
    for each in found:
        if (each["check_id"], part_of(each)) not in EXPLAINED:
            print(
                f"{each['file_path']}: {each['resource']}: {each['check_id']} {each['check_name']}: mend it, or explain it"
            )
    for check, part in sorted(EXPLAINED.keys() - seen):
        print(f"{check} is not found any more of {part}: remove its explanation from {__file__}")
    if seen == EXPLAINED.keys():
        print(f"{len(found)} findings of {len(seen)} kinds, all explained")
    return int(seen != EXPLAINED.keys())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
