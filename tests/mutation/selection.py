"""A pytest plugin: runs the tests of a list, in its order, or records all tests.

The environment names the list, ``MUTATION_SELECT``, or the record's folder,
``MUTATION_RECORD``. A line of either is JSON: a test's id, CPU seconds, whether slow.
"""

import json
import os
import signal
from pathlib import Path

import hypothesis
import pytest

RECORD = os.environ.get("MUTATION_RECORD")
SELECT = os.environ.get("MUTATION_SELECT")
SECONDS = (
    {test: s for test, s, _ in map(json.loads, Path(SELECT).read_text().splitlines())}
    if SELECT
    else {}
)


def pytest_configure(config):
    """A failure suffices here; shrinking it to a small example takes minutes."""
    ci = hypothesis.settings.get_profile("ci")
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutation", ci, phases=phases)
    hypothesis.settings.load_profile("mutation")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    if SELECT:
        rank = {test: place for place, test in enumerate(SECONDS)}
        kept = [item for item in items if item.nodeid in rank]
        items[:] = sorted(kept, key=lambda item: rank[item.nodeid])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    started, failures = os.times(), item.session.testsfailed
    if SELECT:  # The default action of its signal ends a mutant that never returns.
        limit = 60 + 10 * SECONDS[item.nodeid]
        signal.setitimer(signal.ITIMER_PROF, limit)
    result = yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    if RECORD and item.session.testsfailed == failures:
        seconds = sum(os.times()[:4]) - sum(started[:4])
        slow = item.get_closest_marker("slow") is not None
        with (Path(RECORD) / f"{os.getpid()}.jsonl").open("a") as file:
            print(json.dumps([item.nodeid, round(seconds, 3), slow]), file=file)
    return result


def pytest_sessionfinish(session, exitstatus):
    if SELECT and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
