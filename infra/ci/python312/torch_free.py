"""pytest plugin of an environment without torch: runs what needs none, and finds out itself what that is.

A module that cannot be collected, and a test that fails, needs torch when code of this project asked for it meanwhile
(`torch_watch`). Any other failure stays one. As a test that learns to need torch would leave in silence, all of them
are named at the end, and `--at-least` bounds how many must have passed.
"""

import os
from collections.abc import Generator
from typing import Any

import pytest
import torch_watch

_MODULES = "needs_torch"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The floor."""
    parser.addoption("--at-least", type=int, default=1, metavar="N", help="fail unless this many tests passed")


def pytest_configure(config: pytest.Config) -> None:
    """One listener for each process that runs tests."""
    config.pluginmanager.register(_TorchFree(config))


class _TorchFree:
    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.log = torch_watch.folder / str(os.getpid())
        self.log.write_text("")
        self.began = 0
        self.modules: set[str] = set()
        self.causes: list[BaseException] = []

    def _asked(self, since: int) -> bool:
        return self.log.stat().st_size > since

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        began = self.log.stat().st_size
        report = yield
        if report.failed and self._asked(began):
            self.modules.add(collector.nodeid)
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), 0, "needs torch")
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        self.began = self.log.stat().st_size
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if not report.failed or call.excinfo is None:
            return report
        error = call.excinfo.value
        # a fixture of many tests fails once and raises the same error again for each of them
        if self._asked(self.began) or any(error is cause for cause in self.causes):
            self.causes.append(error)
            report.outcome = "skipped"
            report.longrepr = (str(item.path), 0, "needs torch")
            report.needs_torch = True  # type: ignore[attr-defined]
        return report

    def pytest_unconfigure(self) -> None:
        self.log.unlink(missing_ok=True)

    def pytest_testnodedown(self, node: Any) -> None:
        """What a worker of xdist could not collect."""
        self.modules |= set(getattr(node, "workeroutput", {}).get(_MODULES, []))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput[_MODULES] = sorted(self.modules)
        elif session.exitstatus == pytest.ExitCode.OK and self._passed() < self.config.getoption("--at-least"):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        tests = [report.nodeid for report in terminalreporter.stats.get("skipped", []) if hasattr(report, _MODULES)]
        terminalreporter.section(f"need torch: {len(tests)} tests, {len(self.modules)} modules or folders")
        for name in sorted([*tests, *self.modules]):
            terminalreporter.line(name)
        if self._passed() < self.config.getoption("--at-least"):
            terminalreporter.line(f"FAILED: fewer than {self.config.getoption('--at-least')} tests passed", red=True)

    def _passed(self) -> int:
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        return len(reporter.stats.get("passed", []))
