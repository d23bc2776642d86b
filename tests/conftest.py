"""What all tests share."""

from __future__ import annotations

import inspect
import multiprocessing
import os
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from server.demo.fonts import ArabicLayoutMissing
from server.media.workers.pool import DECODERS
from tests.leaks import all_given_back, for_the_others, keep_what_stays, with_tasks_given_back

# As the server itself does at its start: the fork server imports torch once, and decode workers are there at once.
multiprocessing.set_forkserver_preload([DECODERS])


# How long an example takes is the machine's affair.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# ---- In which order

STAGES = ("contracts", "unit", "api", "fuzz", "hostile", "e2e", "drills")
"""The folders of tests, cheap ones first: who breaks something is told so soon."""
SHUFFLED = {"contracts", "unit", "api", "fuzz"}
"""In these pytest-randomly's order holds, another one each time; its seed is at the top of the output. In the others
tests share a real server, and each would start one if they were mixed; in `hostile` the last looks back at all."""


SERIAL = {"hostile", "e2e", "drills"}
"""Each has a server that takes what the machine has, so they all run in one process, after the others."""


def stage_of(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


class _Stages(LoadScopeScheduling):
    """Hands whole files to the processes of `pytest -n`, and what is serial to one of them."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "servers" if file.split("/")[1] in SERIAL else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Stages:
    return _Stages(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    written = {item: number for number, item in enumerate(items)}
    yield
    shuffled = {item: number for number, item in enumerate(items)}

    def place(item: pytest.Item) -> tuple[int, int]:
        stage = stage_of(item)
        return STAGES.index(stage), (shuffled if stage in SHUFFLED else written)[item]

    items.sort(key=place)


# ---- One fault, told once

_broken: dict[object, str] = {}
"""Fixtures of many tests that failed, and for which test that was told."""


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    shared = fixturedef.scope in {"package", "session"}
    try:
        with for_the_others() if shared else nullcontext():
            return (yield)
    except ArabicLayoutMissing as missing:
        pytest.skip(str(missing))
    except Exception:
        if fixturedef.scope != "function":
            _broken[fixturedef] = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
        raise


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what hangs on a fixture that has failed: hundreds of tests would repeat its error, page by page."""
    definitions = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009  pytest has no name for it
    for name in getattr(item, "fixturenames", ()):
        for definition in definitions.get(name, ())[-1:]:
            if definition in _broken:
                pytest.skip(f"the fixture {name} failed, see {_broken[definition]}")


# ---- Every test gives back what it takes


@pytest.fixture(scope="session", autouse=True)
def _the_run_gives_back() -> Iterator[None]:
    keep_what_stays()
    with all_given_back("this run of tests", at_last=True):
        yield


@pytest.fixture(scope="module", autouse=True)
def _a_module_gives_back(request: pytest.FixtureRequest, _the_run_gives_back: None) -> Iterator[None]:
    with all_given_back(request.node.nodeid):
        yield


@pytest.fixture(autouse=True)
def _a_test_gives_back(request: pytest.FixtureRequest, _a_module_gives_back: None) -> Iterator[None]:
    with all_given_back(request.node.nodeid):
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Watch a test's tasks; where FriBiDi is missing, skip exactly the tests that come to draw Arabic."""
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = with_tasks_given_back(pyfuncitem.obj, pyfuncitem.nodeid)
    try:
        return (yield)
    except ArabicLayoutMissing as missing:
        pytest.skip(str(missing))
