"""`python -m tests.cluster`: a Kubernetes cluster for tests on this machine, up and down."""

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import images
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.cluster.kubelet_cluster import KubeletCluster
from tests.cluster.pins import aged, pins
from tests.cluster.tools import CONTROL_PLANE, KUBELET, TESTED_WITH, Tools, default_cache

TIERS = {"control-plane": CONTROL_PLANE, "kubelet": KUBELET}
PROGRAMS = {**TIERS, "tests": TESTED_WITH, "all": (*TESTED_WITH, *KUBELET)}
"""What `build` compiles: a tier's programs, those of the tests, or both."""


def default_folder() -> Path:
    """Where the cluster lives while it is up: below XDG_STATE_HOME, or ~/.local/state."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "adapter-training-operator"


def up(folder: Path, tools: Tools, tier: str, fake_nodes: int) -> None:
    """Start the cluster unless it is up, or look for the one that KUBECONFIG names; say how to reach it."""
    given = _given_cluster(folder)
    if given is not None:
        _check(given, tools)
        print(f"using the cluster of KUBECONFIG={given}; nothing was started")
        return
    plan = {"tier": tier, "fake_nodes": fake_nodes}
    plane = _cluster(folder, tools, fake_nodes)
    if plane.is_running():
        running = json.loads(_plan_file(folder).read_text())
        if running != plan:
            raise ClusterError(
                f"another cluster is up in {folder} ({running}): take it down first, or choose another --folder"
            )
    else:
        down(folder, tools)  # what a crash or reboot left
        if tier == "kubelet" and os.geteuid() != 0:
            raise ClusterError("the kubelet tier needs root; without it: --tier control-plane")
        if folder.exists() and any(folder.iterdir()):
            raise ClusterError(f"{folder} holds other things, which `down` would remove: choose another --folder")
        tools.build(TIERS[tier])
        folder.mkdir(parents=True, exist_ok=True)
        _plan_file(folder).write_text(json.dumps(plan))
        if tier == "kubelet":
            KubeletCluster(folder, tools, die_with_caller=False).start()
        else:
            plane.start()
    print(f"the cluster is up; its logs are in {folder / 'logs'}\n")
    print(f"export KUBECONFIG={plane.kubeconfig}")
    print(f"export KUBECACHEDIR={plane.discovery_cache}")
    programs = dict.fromkeys(str(tools.path(name).parent) for name in ("kubectl", "helm") if name in TIERS[tier])
    print(f"export PATH={':'.join(programs)}:$PATH")


def down(folder: Path, tools: Tools) -> None:
    """End what `up` started in this folder and leave nothing of it; a cluster of KUBECONFIG is left alone."""
    if not _plan_file(folder).exists():
        return
    if json.loads(_plan_file(folder).read_text())["tier"] == "kubelet":
        KubeletCluster(folder, tools, die_with_caller=False).stop()
    else:
        _cluster(folder, tools).stop()


def load(folder: Path, tools: Tools, names: Sequence[str]) -> None:
    """Give images of buildah's storage to the node."""
    if not _plan_file(folder).exists() or json.loads(_plan_file(folder).read_text())["tier"] != "kubelet":
        raise ClusterError(
            f"no kubelet-tier cluster is up in {folder}: images of another cluster come from its registry"
        )
    node = KubeletCluster(folder, tools, die_with_caller=False).node
    for name in names:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            file = Path(temporary) / "image.tar"
            images.archive(name, file)
            node.load(file)


def run(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--folder", type=Path, default=default_folder(), help="the cluster's own folder (%(default)s)")
    parser.add_argument("--build-processes", type=int, help="packages that Go compiles at a time (default: one a core)")
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up", help=up.__doc__)
    starting.add_argument("--tier", choices=sorted(TIERS), default="kubelet", help="default: %(default)s")
    starting.add_argument("--fake-nodes", type=int, default=0, help="nodes that KWOK plays (control-plane tier)")
    building = commands.add_parser("build", help="Compile programs and start nothing.")
    building.add_argument("--for", dest="purpose", choices=sorted(PROGRAMS), default="all", help="default: %(default)s")
    commands.add_parser("down", help=down.__doc__)
    loading = commands.add_parser("load", help=load.__doc__)
    loading.add_argument("image", nargs="+")
    commands.add_parser("pins", help="Name pinned versions of other programs that are older than six months.")
    commands.add_parser("base-image", help=images.debian.__doc__)
    options = parser.parse_args(arguments)

    folder = options.folder.absolute()
    try:
        tools = Tools(default_cache(), options.build_processes)
        match options.command:
            case "up":
                up(folder, tools, options.tier, options.fake_nodes)
            case "build":
                tools.build(tuple(dict.fromkeys(PROGRAMS[options.purpose])))
            case "down":
                down(folder, tools)
            case "load":
                load(folder, tools, options.image)
            case "pins":
                print(*aged(list(pins()), dt.datetime.now(dt.UTC).date()), sep="\n")
            case "base-image":
                print(images.debian())
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _cluster(folder: Path, tools: Tools, fake_nodes: int = 0) -> ControlPlane:
    return ControlPlane(folder, tools, fake_nodes=fake_nodes, die_with_caller=False)


def _plan_file(folder: Path) -> Path:
    return folder / "cluster.json"


def _given_cluster(folder: Path) -> str | None:
    """The user's own kubeconfig: not the one that `up` told the user to export."""
    given = os.environ.get("KUBECONFIG")
    return None if not given or given == str(folder / "kubeconfig") else given


def _check(kubeconfig: str, tools: Tools) -> None:
    command = [str(tools.path("kubectl")), "get", "--raw", "/readyz", "--request-timeout=10s"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(
            f"KUBECONFIG={kubeconfig} leads to no ready cluster: {done.stderr.strip()}; unset it to start one"
        )


if __name__ == "__main__":
    sys.exit(run())
