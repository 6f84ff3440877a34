"""Reports a test run file by file: which is done, how many of its tests passed, and how far the whole run is."""

from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest
from _pytest.terminal import TerminalReporter


class Progress:
    """A pytest plugin that prints one line a file in place of one letter a test.

    It counts what workers of pytest-xdist report as well. A run with `-v` or `-q` keeps pytest's own report.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._expected: Counter[str] = Counter()
        self._ended: dict[str, Counter[str]] = {}
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @property
    def _terminal(self) -> TerminalReporter:
        found = self._config.pluginmanager.get_plugin("terminalreporter")
        assert isinstance(found, TerminalReporter)
        return found

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        """Silence pytest's list of files, to which it would add a letter for every test."""
        self._terminal.showfspath = False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count the tests of each file, in a run without workers."""
        self._expect(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Count the tests of each file, as the first worker tells."""
        if not self._expected:
            self._expect(ids)

    def _expect(self, ids: Iterable[str]) -> None:
        self._expected.update(identifier.partition("::")[0] for identifier in ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str]:
        """Count a test as pytest does, and print no letter for it."""
        if report.passed:
            return ("passed", "", "PASSED") if report.when == "call" else ("", "", "")
        if report.failed and report.when != "call":
            return ("error", "", "ERROR")
        return (report.outcome, "", report.outcome.upper())

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a failure at once, and a line for a file whose last test has ended."""
        file = report.nodeid.partition("::")[0]
        self._seconds[file] += report.duration
        ended = self._ended.setdefault(file, Counter())
        if report.failed:
            ended["failed"] += 1
            self._terminal.write_line(f"FAILED {report.nodeid} ({report.when})", red=True)
        elif report.skipped or report.when == "call":
            ended[report.outcome] += 1
        if report.when == "teardown":
            ended["ended"] += 1
            if ended["ended"] == self._expected[file]:
                self._file_done(file, ended)

    def _file_done(self, file: str, ended: Counter[str]) -> None:
        total = sum(self._expected.values())
        share = 100 * sum(each["ended"] for each in self._ended.values()) // total
        counts = ", ".join(f"{ended[what]} {what}" for what in ("passed", "failed", "skipped") if ended[what])
        self._terminal.write_line(f"{share:3d}%  {file}: {counts} ({self._seconds[file]:.1f} s)")
