"""The processes of one cluster: started apart from the caller, found again later, signalled, ended.

Each process leaves a record in the cluster's folder, so that one command can end what another started.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.cluster.errors import ClusterError

# These wait in the foreground for the program that they put into other namespaces.
WRAPPERS = ("nsenter", "unshare")


class Processes:
    """Processes by name, with records in `folder`/processes and output in `folder`/logs."""

    def __init__(self, folder: Path, *, die_with_caller: bool) -> None:
        self._records = folder / "processes"
        self._logs = folder / "logs"
        self._die_with_caller = die_with_caller

    def start(self, name: str, argv: Sequence[str | Path]) -> None:
        """Start a program in a session of its own; its output is appended to its log.

        Raises:
            ClusterError: The program isn't there.
        """
        for folder in (self._records, self._logs):
            folder.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in argv]
        if self._die_with_caller:  # the kernel ends it even if the caller is killed
            words = ["setpriv", "--pdeathsig", "KILL", "--", *words]
        program = shutil.which(words[0])
        if program is None:
            raise ClusterError(f"{name} can't start: there is no {words[0]}")
        # Not subprocess.Popen: that object warns, rightly, of a process that outlives it, as these should.
        pid = os.posix_spawn(
            program,
            words,
            os.environ,
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log(name)), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        record = {"pid": pid, "started": psutil.Process(pid).create_time(), "argv": [str(word) for word in argv]}
        (self._records / f"{name}.json").write_text(json.dumps(record))

    def start_again(self, name: str) -> None:
        """Start a process with the arguments that it had, once it has ended.

        Raises:
            ClusterError: It still runs.
        """
        ending = self._outer(name)
        if ending is not None and not _ends(ending, 10):
            raise ClusterError(f"{name} still runs: kill it first")
        record = json.loads((self._records / f"{name}.json").read_text())
        self.start(name, record["argv"])

    def find(self, name: str) -> psutil.Process | None:
        """The running program, not what wraps it; None when it has ended or was never started."""
        outer = self._outer(name)
        if outer is None:
            return None
        try:
            if outer.name() in WRAPPERS and (inner := outer.children()):
                return inner[0]
        except psutil.NoSuchProcess:
            return None
        return outer

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the program; after SIGKILL, wait until it is gone.

        Raises:
            ClusterError: It isn't running.
        """
        process = self.find(name)
        if process is None:
            raise ClusterError(f"{name} isn't running: see {self.log(name)}")
        process.send_signal(number)
        if number == signal.SIGKILL:
            _ends(process, 10)

    def stop(self, name: str, *, grace: float = 5) -> None:
        """End the program if it runs, by force after `grace` seconds, and forget it."""
        outer, inner = self._outer(name), self.find(name)
        for process in (inner, outer):
            if process is None:
                continue
            try:
                process.send_signal(signal.SIGCONT)  # a stopped process can't end itself
                process.terminate()
                if not _ends(process, grace):
                    process.kill()
                    _ends(process, grace)
            except psutil.NoSuchProcess:
                pass
        (self._records / f"{name}.json").unlink(missing_ok=True)

    def stop_all(self) -> None:
        """End every process, the youngest first."""
        for name in reversed(self.names()):
            self.stop(name)

    def names(self) -> list[str]:
        """Every process that was started and not stopped, whether or not it still runs; the oldest first."""
        records = sorted(self._records.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        return [record.stem for record in records]

    def log(self, name: str) -> Path:
        """Where the process's output is."""
        return self._logs / f"{name}.log"

    def wait_until(self, ready: Callable[[], bool], seconds: float, name: str) -> None:
        """Wait until `name` is ready.

        Raises:
            ClusterError: It ended, or wasn't ready in time; the message has the last lines of its log.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            ended = self._outer(name) is None
            if ended or time.monotonic() > deadline:
                happened = "ended" if ended else f"wasn't ready after {seconds:.0f} s"
                last = "\n".join(self.log(name).read_text(errors="replace").splitlines()[-10:])
                raise ClusterError(f"{name} {happened}; its log is {self.log(name)} and closes with:\n{last}")
            time.sleep(0.1)

    def _outer(self, name: str) -> psutil.Process | None:
        try:
            record = json.loads((self._records / f"{name}.json").read_text())
            process = psutil.Process(record["pid"])
            same = process.create_time() == record["started"]  # process ids are used again
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None


def _ends(process: psutil.Process, seconds: float) -> bool:
    """Whether the process ends in time.

    Another's child has ended when it is a zombie: some machines' first process takes seconds to reap one.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            process.wait(0.02)  # reaps our own child
            return True
        except psutil.TimeoutExpired:
            if _is_zombie(process):
                return True
            if time.monotonic() > deadline:
                return False


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
