"""Linux namespaces that hold a whole node: what is in them ends and vanishes with their first process.

Network links, nftables tables, mounts, sockets, pods' network namespaces and every process of a pod belong to them, so
that nothing of a node has to be found and undone piece by piece.
"""

import subprocess
from pathlib import Path

from tests.cluster.control_plane import SERVICE_NETWORK
from tests.cluster.errors import ClusterError
from tests.cluster.processes import Processes

NAME = "namespaces"
HOST_LINK = "atj-node"
HOST_ADDRESS = "10.88.1.1"
NODE_ADDRESS = "10.88.1.2"
LINK_PREFIX = 30

# Programs that keep state under fixed paths find the cluster's folder there. The shell stays: it reaps orphans, which the
# first process of a PID namespace has to.
FIRST_PROCESS = """
set -e
mount --make-rshared /
mkdir -p "$1/var-lib" "$1/var-log"
mount --bind "$1/var-lib" /var/lib
mount --bind "$1/var-log" /var/log
mount -t tmpfs -o mode=755 tmpfs /run
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
bridged=/proc/sys/net/bridge/bridge-nf-call-iptables
if [ -e $bridged ]; then echo 1 > $bridged; fi
touch "$1/namespaces-ready"
trap exit TERM
sleep infinity &
wait
"""
HIDDEN = ("/run", "/var/lib", "/var/log")


class NodeNamespaces:
    """The network, mount and PID namespaces of one node, joined with the host by one link."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._folder = folder
        self._processes = processes

    def create(self) -> None:
        """Make them and the link.

        Raises:
            ClusterError: The folder would be hidden inside, or the kernel refuses.
        """
        for hidden in map(Path, HIDDEN):
            if self._folder.resolve().is_relative_to(hidden.resolve()):
                raise ClusterError(
                    f"{self._folder} lies below {hidden}, which a node has of its own: choose another --folder"
                )
        self._folder.mkdir(parents=True, exist_ok=True)
        ready = self._folder / "namespaces-ready"
        ready.unlink(missing_ok=True)
        unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._processes.start(NAME, [*unshare, "bash", "-c", FIRST_PROCESS, "bash", self._folder])
        self._processes.wait_until(ready.exists, 10, NAME)
        first = str(self._first_process())
        _ip("link", "add", HOST_LINK, "type", "veth", "peer", "name", "uplink", "netns", first)
        _ip("address", "add", f"{HOST_ADDRESS}/{LINK_PREFIX}", "dev", HOST_LINK)
        _ip("link", "set", HOST_LINK, "up")
        inside = ("nsenter", f"--target={first}", "--net")
        _ip("address", "add", f"{NODE_ADDRESS}/{LINK_PREFIX}", "dev", "uplink", enter=inside)
        _ip("link", "set", "uplink", "up", enter=inside)
        # kube-proxy rewrites a Service's address before anything leaves, but without a route nothing sets out.
        _ip("route", "add", SERVICE_NETWORK, "dev", "uplink", enter=inside)

    def destroy(self) -> None:
        """End everything that is still in them, and the link."""
        self._processes.stop(NAME)
        # The kernel removes the link with the namespace, but later: a new cluster would meet it.
        if Path(f"/sys/class/net/{HOST_LINK}").exists():
            subprocess.run(["ip", "link", "delete", HOST_LINK], capture_output=True, check=False)

    def enter_network(self) -> tuple[str, ...]:
        """The command that runs another one in the node's network only."""
        return ("nsenter", f"--target={self._first_process()}", "--net", "--")

    def enter(self) -> tuple[str, ...]:
        """The command that runs another one on the node."""
        return ("nsenter", f"--target={self._first_process()}", "--net", "--mount", "--pid", "--")

    def _first_process(self) -> int:
        process = self._processes.find(NAME)
        if process is None:
            raise ClusterError(f"the node's namespaces are gone: see {self._processes.log(NAME)}")
        return process.pid


def _ip(*arguments: str, enter: tuple[str, ...] = ()) -> None:
    done = subprocess.run([*enter, "ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        hint = " (does another test cluster run on this machine?)" if "exists" in done.stderr else ""
        raise ClusterError(f"ip {' '.join(arguments)}: {done.stderr.strip()}{hint}")
