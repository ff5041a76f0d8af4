"""Which tests run for a mutant, and in which order."""

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from coverage import CoverageData


class Test(NamedTuple):
    """A test's id, what it cost when coverage was recorded, and its lane."""

    name: str
    seconds: float
    slow: bool

    @property
    def file(self) -> str:
        return self.name.partition("::")[0]


class Plan:
    """The tests that passed when coverage was recorded, by the lines they executed.

    Args:
      record: Folder of the files that the plugin wrote.
      coverage: Data of the same runs, with a context for each test.
      tree: Folder in which it ran.
      paths: Files of the package, relative to the tree.
      exclude: Ids of tests that are not used.
      always: Ids of tests of the quick lane that read every file's interface, which
        Python executes before any test.
    """

    def __init__(
        self,
        record: Path,
        coverage: Sequence[Path],
        tree: Path,
        paths: Collection[str],
        exclude: Collection[str],
        always: Collection[str],
    ):
        lines = (
            line
            for file in sorted(record.glob("*.jsonl"))
            for line in file.read_text(encoding="utf-8").splitlines()
        )
        tests = (Test(*json.loads(line)) for line in lines)
        self.tests = {test.name: test for test in tests if test.name not in exclude}
        self._always = [self.tests[name] for name in always]
        self._of_file = defaultdict(set)
        for test in self.tests.values():
            self._of_file[test.file].add(test)
        data = CoverageData(no_disk=True)
        for path in coverage:
            lane = CoverageData(str(path))
            lane.read()
            data.update(lane)
        self._covering: dict[str, dict[int, set[Test]]] = {}
        touched = defaultdict(set)
        for path in paths:
            contexts = data.contexts_by_lineno(str(tree / path))
            by_line = self._covering[path] = {
                line: self._known(names) for line, names in contexts.items()
            }
            for test in set().union(*by_line.values()):
                touched[test.file].add(path)
        # A file of tests that touches few modules is about one of them.
        self._breadth = {file: len(paths) for file, paths in touched.items()}

    def _known(self, contexts: Sequence[str]) -> set[Test]:
        """The tests of contexts, which pytest-cov calls ``id|phase``."""
        found = set()
        for context in contexts:
            name, _, phase = context.rpartition("|")
            if name in self.tests:
                found.add(self.tests[name])
                if phase == "setup":  # Of a fixture that others of the file share.
                    found |= self._of_file[self.tests[name].file]
        return found

    def choose(
        self, path: str, lines: range, slow: bool, seconds: float, first: float
    ) -> list[list[Test]]:
        """The tests of a lane that cover a file, for two processes in turn.

        Tests that executed one of the lines come first. Among those, files of tests go
        from the most direct to the broadest, and within a file the cheapest test of
        each function precedes the second of any.
        """
        by_line = self._covering[path]
        near = set().union(*(by_line.get(line, ()) for line in lines))
        covering = set().union(*by_line.values())
        # A program that another test of the file has traced executes no line again.
        covering |= {test for one in near for test in self._of_file[one.file]}
        turns: dict[Test, int] = {}
        seen: dict[str, int] = defaultdict(int)
        for test in sorted(covering, key=lambda test: (test.seconds, test.name)):
            function = test.name.partition("[")[0]
            seen[function] += 1
            turns[test] = seen[function]

        def rank(test: Test) -> tuple:
            breadth = self._breadth[test.file]
            return test not in near, breadth, test.file, turns[test], test.seconds

        chunks: list[list[Test]] = [[], []]
        spent = 0.0
        for test in sorted((t for t in covering if t.slow == slow), key=rank):
            if spent + test.seconds <= seconds:
                late = test not in near or spent + test.seconds > first
                chunks[late].append(test)
                spent += test.seconds
        if not slow:
            chunks[0].extend(test for test in self._always if test not in covering)
        return [chunk for chunk in chunks if chunk]
