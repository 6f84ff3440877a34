"""CPU time, peak memory and writes of a stretch of time."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.cluster.control_plane import COMPONENTS, ControlPlane

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Used:
    """What a stretch of time has cost."""

    seconds: float
    cpu: dict[str, float]
    """Component -> CPU seconds; `operator` among them."""
    peak_mib: float
    """Of the operator; of several processes, the sum of each one's."""
    writes: Counter[str]
    """`who: verb resource` -> how many; who is `operator` or the account's name. Leases and nodes' heartbeats do not count."""

    @property
    def all_writes(self) -> int:
        """By everybody."""
        return self.writes.total()

    @property
    def own_writes(self) -> int:
        """By the operator."""
        return sum(count for what, count in self.writes.items() if what.startswith("operator: "))


class Meter:
    """From its making to `stop`.

    Args:
        plane: With an audit log.
        pids: The operator's processes, if there are any.
        users: The operator's names in the audit log.
    """

    def __init__(self, plane: ControlPlane, pids: Sequence[int], users: tuple[str, ...]) -> None:
        self._plane, self._pids, self._users = plane, pids, users
        for pid in pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak from now on, see proc_pid_clear_refs(5)
        self._audited = plane.audit_log.stat().st_size
        self._cpu = self._cpu_now()
        self._started = time.monotonic()

    def stop(self) -> Used:
        """What was used since."""
        seconds = time.monotonic() - self._started
        now = self._cpu_now()
        cpu = {name: value - self._cpu.get(name, 0.0) for name, value in now.items()}
        peak = sum(map(_peak_mib, self._pids), 0.0)
        time.sleep(0.3)  # the audit log is written a little later
        return Used(seconds, cpu, peak, self._writes())

    def _cpu_now(self) -> Mapping[str, float]:
        processes = [(name, self._plane.processes.find(name)) for name in COMPONENTS]
        processes += [("operator", psutil.Process(pid)) for pid in self._pids]
        found: dict[str, float] = defaultdict(float)
        for name, process in processes:
            if process is not None:
                times = process.cpu_times()
                found[name] += times.user + times.system
        return found

    def _writes(self) -> Counter[str]:
        found: Counter[str] = Counter()
        with self._plane.audit_log.open("rb") as log:
            log.seek(self._audited)
            for line in log:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # the last line may not be whole
                if event.get("verb") not in WRITES:
                    continue
                user, what = event["user"]["username"], event.get("objectRef") or {}
                who = "operator" if user in self._users else user.rpartition(":")[2]
                subresource = f"/{what['subresource']}" if "subresource" in what else ""
                if what.get("resource") == "nodes":
                    continue  # the nodes' own signs of life: so many a minute, whatever jobs there are
                found[f"{who}: {event['verb']} {what.get('resource')}{subresource}"] += 1
        return found


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
