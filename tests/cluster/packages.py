"""Debian's programs that a node needs, installed by apt-get when they are missing."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.errors import ClusterError

NODE = {
    "containerd": "/usr/bin/containerd",
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "nftables": "/usr/sbin/nft",
    "iproute2": "/usr/sbin/ip",
    "buildah": "/usr/bin/buildah",
    "busybox-static": "/bin/busybox",
}
BASE_IMAGE = {"buildah": "/usr/bin/buildah", "debootstrap": "/usr/sbin/debootstrap"}


def ensure(needed: Mapping[str, str]) -> None:
    """Install the packages (name -> a file that each brings) whose file is missing.

    Raises:
        ClusterError: They are missing and can't be installed here.
    """
    missing = [package for package, file in needed.items() if not Path(file).exists()]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise ClusterError(f"install {', '.join(missing)} first: there is no apt-get here, or you are not root")
    print(f"installing {', '.join(missing)}", flush=True)
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Only the second try asks for new package lists: where lists are there, that is a minute saved.
    for commands in ([install], [["apt-get", "update", "--quiet"], install]):
        done = [
            subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            for command in commands
        ]
        if done[-1].returncode == 0:
            return
    raise ClusterError(f"apt-get could not install {', '.join(missing)}:\n{done[-1].stderr.strip()}")
