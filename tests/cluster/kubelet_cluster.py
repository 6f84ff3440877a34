"""The kubelet tier: a control plane and one node that runs real pods, together in the node's namespaces."""

import datetime as dt
from pathlib import Path

from tests.cluster import packages
from tests.cluster.certificates import Authority
from tests.cluster.control_plane import ControlPlane, Placement
from tests.cluster.namespaces import NODE_ADDRESS, NodeNamespaces
from tests.cluster.node import Node
from tests.cluster.processes import Processes
from tests.cluster.tools import KUBELET, Tools

PORT = 6443


class KubeletCluster:
    """One cluster with real pods; a machine has room for one.

    Args:
        folder: Holds everything of this cluster; removed by `stop`.
        tools: The programs.
        die_with_caller: Whether its processes end when the calling process does.
    """

    def __init__(self, folder: Path, tools: Tools, *, die_with_caller: bool = True) -> None:
        self._tools = tools
        self._processes = Processes(folder.absolute(), die_with_caller=die_with_caller)
        self._namespaces = NodeNamespaces(folder.absolute(), self._processes)
        self.control_plane = ControlPlane(
            folder,
            tools,
            die_with_caller=die_with_caller,
            placement=Placement(NODE_ADDRESS, PORT, self._namespaces.enter_network),
        )
        self.node = Node(self.control_plane, self._namespaces, tools)

    def start(self) -> Path:
        """Start everything and wait until the node takes pods.

        Returns:
            A kubeconfig of a user who may do everything.

        Raises:
            ClusterError: A package or program is missing, or a component ended or wasn't ready in a minute.
        """
        packages.ensure(packages.NODE)
        self._tools.build(KUBELET)
        self._namespaces.create()
        authority = Authority(self.control_plane.certificates, dt.datetime.now(dt.UTC))
        kubeconfig = self.control_plane.start(authority)
        self.node.start(authority, f"https://{NODE_ADDRESS}:{PORT}")
        return kubeconfig

    def stop(self) -> None:
        """End every process and pod, undo every change of the machine, and remove the folder."""
        self._processes.stop_all()
        self._namespaces.destroy()
        self.node.clean_up()
        self.control_plane.stop()
