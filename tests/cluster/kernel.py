"""What a node changes in the one kernel that no namespace divides: a few settings, and pods' control groups."""

import json
import os
import time
from pathlib import Path

from tests.cluster.errors import ClusterError

# The kubelet sets these for the whole machine.
SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
CONTROL_GROUPS = Path("/sys/fs/cgroup")
PODS_GROUP = "kubepods"


def remember_settings(file: Path) -> None:
    """Write the settings as they are now; what was remembered before stays."""
    if not file.exists():
        file.write_text(json.dumps({name: (Path("/proc/sys") / name).read_text().strip() for name in SETTINGS}))


def restore_settings(file: Path) -> None:
    """Set what was remembered, if anything was."""
    if not file.exists():
        return
    for name, value in json.loads(file.read_text()).items():
        (Path("/proc/sys") / name).write_text(value)


def pods_groups() -> list[Path]:
    """Pods' control groups, one for each hierarchy (cgroup v2 has one, v1 many)."""
    return [*CONTROL_GROUPS.glob(PODS_GROUP), *CONTROL_GROUPS.glob(f"*/{PODS_GROUP}")]


def remove_pods_groups(seconds: float = 10) -> None:
    """Remove the control groups of pods whose processes have ended.

    Raises:
        ClusterError: A process is still in one of them.
    """
    deadline = time.monotonic() + seconds
    for top in pods_groups():
        for folder, _, _ in os.walk(top, topdown=False):
            while True:
                try:
                    Path(folder).rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError as error:  # its last process may still be on its way out
                    if time.monotonic() > deadline:
                        raise ClusterError(
                            f"{folder} can't be removed: {error.strerror}; end what runs in it"
                        ) from error
                    time.sleep(0.05)
