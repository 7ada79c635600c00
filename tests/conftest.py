"""What the tests of every package share: the three backends, the Hypothesis profiles, and the rule about skips."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

BACKENDS = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}

settings.register_profile("dev", max_examples=100, deadline=None)
settings.register_profile(
    "ci", max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(params=BACKENDS.values(), ids=list(BACKENDS))
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Run the test on asyncio, on asyncio with uvloop, and on trio. A missing uvloop or trio is a failure."""
    backend: tuple[str, dict[str, bool]] = request.param
    return backend


def pytest_configure() -> None:
    """Let programs that tests start hear Ctrl-C, although a shell that runs the tests in the background ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loops", default=",".join(BACKENDS), help="the event loops to test, such as asyncio,trio")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of other event loops."""
    chosen = set(config.getoption("--loops").split(","))
    if unknown := chosen - set(BACKENDS):
        raise pytest.UsageError(f"--loops takes {', '.join(BACKENDS)}, not {', '.join(sorted(unknown))}")
    left_out = [item for item in items if loop_of(item) not in {None, *chosen}]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if loop_of(item) in {None, *chosen}]


def loop_of(item: pytest.Item) -> str | None:
    """The event loop that a test is about, if it is made for each."""
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    for name, backend in BACKENDS.items():
        if params.get("anyio_backend") == backend or params.get("loop") == name:
            return name
    return None


# How a program that a test starts is told to count its lines.
COVERAGE = "COVERAGE_PROCESS_CONFIG"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Count the lines of the programs that a test starts on the first event loop alone.

    Counting takes half a second of CPU for each program, which is as long as everything else that it does. What is
    particular to the other event loops is counted in the processes of the tests.
    """
    if loop_of(item) in {None, *list(BACKENDS)[:1]}:
        return (yield)
    config = os.environ.pop(COVERAGE, None)
    try:
        return (yield)
    finally:
        if config is not None:
            os.environ[COVERAGE] = config


RequireTool: TypeAlias = Callable[[str], str]


@pytest.fixture(scope="session")
def require_tool() -> RequireTool:
    """Give the path of a program that a test needs, and skip the test where that program is not installed.

    In CI that skip is a failure, as every skip is that ALLOWED_SKIPS does not name.
    """

    def require(name: str) -> str:
        # Debian keeps servers in /usr/sbin, which an ordinary user's PATH leaves out.
        path = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
        if path is None:
            pytest.skip(f"needs the program {name}, which is not installed (.ci/run lists the Debian packages)")
        return path

    return require


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis or Valkey server for all tests that leave it alone."""
    from tests.redis_server import running_server  # noqa: PLC0415 (tests of the gates copy this file alone)

    yield from running_server(tmp_path_factory.mktemp("redis"))


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis or Valkey server that the test may stop and pause."""
    from tests.redis_server import running_server  # noqa: PLC0415 (as above)

    yield from running_server(tmp_path_factory.mktemp("redis"))


# The reasons for which a test may skip in CI: the beginning of the reason, and why CI cannot run it.
ALLOWED_SKIPS: dict[str, str] = {}


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure when this is CI and nothing above allows it."""
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else report.longreprtext
    if not reason.startswith(tuple(ALLOWED_SKIPS)):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} skipped in CI, where nothing may be missing: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hold each test to the rule about skips."""
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Hold each test file to the rule about skips."""
    report = yield
    refuse_skip(report)
    return report
