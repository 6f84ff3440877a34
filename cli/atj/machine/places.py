"""Where the nodes of a local run are: folders, loopback addresses, and each one's share of the cores."""

import os
import socket
import sys
from pathlib import Path

from adapter_api.job import AdapterTrainingJob
from adapter_api.launch import NodePlace
from atj.storage.output_folder import OutputFolder

HOST = "127.0.0.1"
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


def places(job: AdapterTrainingJob, folder: OutputFolder) -> list[NodePlace]:
    """The place of every node, with a rendezvous port that was free just now."""
    spec = job.spec
    port = _free_port()
    threads = None if _said_threads(job) is not None else threads_of(job)
    return [
        NodePlace(
            index=node,
            rendezvous_host=HOST,
            rendezvous_port=port,
            address=HOST,
            work=str(folder.work(node).resolve()),
            data=str(_data(job) or folder.work(node).resolve() / "data"),
            threads=threads,
            python=sys.executable,
        )
        for node in range(spec.nodes)
    ]


def threads_of(job: AdapterTrainingJob) -> int:
    """CPU threads of each training process: as many as the job or the shell says, or else its share of the cores."""
    said = _said_threads(job) or ""
    share = len(os.sched_getaffinity(0)) // job.spec.world_size
    return max(1, int(said) if said.isdecimal() else share)


def _said_threads(job: AdapterTrainingJob) -> str | None:
    return trainer_environment(job).get("OMP_NUM_THREADS")


def _data(job: AdapterTrainingJob) -> Path | None:
    """The folder that all nodes read in place, if the job names one."""
    data = job.spec.data
    return None if data is None or data.folder is None else Path(data.folder).resolve()


def trainer_environment(job: AdapterTrainingJob) -> dict[str, str]:
    """What trainers find in their environment: the user's own without storage's keys, the job's, traffic kept in this machine."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    given = {variable.name: variable.value for variable in job.spec.pod.env if variable.value is not None}
    loopback = {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK, "PYTHONUNBUFFERED": "1"}
    # Else torchrun leaves a folder in /tmp after every attempt, for logs that it does not write: ours are in the output folder.
    return {**loopback, "PET_LOG_DIR": os.devnull, **own, **given}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
