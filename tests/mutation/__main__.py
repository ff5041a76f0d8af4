"""Mutation testing: ``python tests/mutation record``, ``run``, ``report``.

See docs/testing.md.
"""

import argparse
import json
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult
from coverage import Coverage, CoverageData
from mutants import Mutant, differences, sample
from plan import Plan, Test

from experiments.reporting import docs, tables

ROOT = Path(__file__).parents[2]
CONFIG = tomllib.loads((Path(__file__).parent / "mutation.toml").read_text("utf-8"))
DOCUMENT = ROOT / "docs" / "testing.md"
LANES = {
    "quick": "not slow and not oracle and not browser",
    "slow": "slow and not oracle",
}
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "selection", "--tb=no"]
PYTEST += ["-p", "no:cacheprovider", "-m"]
ONE_BY_ONE = [*PYTEST, "", "-n", "0"]
_NO_TEST = "a crash or a time limit"
_NOT_COPIED = {".git", ".hypothesis", "build", "results"}
_NOT_RUN = re.compile(r"^ERROR: .*", re.MULTILINE)  # Such as a file that is missing.
_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


class Work:
    """The folder of a run: copies of the project, records and results."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.coverage = {lane: self.folder / f"coverage-{lane}" for lane in LANES}
        self.tests = self.folder / "tests"
        self.commit = self.folder / "commit"
        self.tests.mkdir(parents=True, exist_ok=True)

    def tree(self, number: int) -> Path:
        return self.folder / f"tree{number}"

    def copy(self, number: int, of: Path = ROOT) -> None:
        shutil.rmtree(self.tree(number), ignore_errors=True)
        shutil.copytree(
            of,
            self.tree(number),
            # At the top alone: the documents have results, too.
            ignore=lambda folder, _: _NOT_COPIED if Path(folder) == of else (),
        )

    def environment(self, number: int) -> dict[str, str]:
        """Variables for tests in a copy; all share one cache of compiled programs."""
        tree = self.tree(number)
        return {
            "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'tests' / 'mutation'}",
            "HYPOTHESIS_PROFILE": "ci",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
        }

    def pytest(self, command: Sequence[str], **variables: str) -> tuple[int, str]:
        """Run tests in the first copy, without a mutant: exit code and output."""
        env = os.environ | self.environment(0) | variables
        done = subprocess.run(
            command, cwd=self.tree(0), env=env, stdout=subprocess.PIPE, text=True
        )
        return done.returncode, done.stdout

    def select(self, tests: Sequence[Test], name: str) -> tuple[str, list[str]]:
        """A list for the plugin, and the files that pytest must collect."""
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(test)}\n" for test in tests), "utf-8")
        return str(path), list(dict.fromkeys(test.file for test in tests))

    def results(self, lane: str) -> dict[str, WorkResult]:
        with use_db(str(self.folder / f"{lane}.sqlite")) as db:
            return dict(db.results)


def record(work: Work, workers: int, arguments: Sequence[str]) -> None:
    """Run the tests; add to the record which lines each executed, and what it cost."""
    work.copy(0)
    git = ["git", "describe", "--always", "--dirty"]
    work.commit.write_text(subprocess.check_output(git, text=True).strip(), "utf-8")
    run = ["-n", str(workers), "--cov=fairjax", "--cov-branch", "--cov-context=test"]
    run += ["--cov-report=", "--cov-append", *arguments]
    for lane, marked in LANES.items():
        to = {"MUTATION_RECORD": str(work.tests)}
        to["COVERAGE_FILE"] = str(work.coverage[lane])
        _, output = work.pytest([*PYTEST, marked, *run], **to)
        print(output, "Tests that failed are left out.", sep="\n")


def _start(folder: Path, numbers: "multiprocessing.Queue[int]") -> None:
    """Give a worker process a copy of its own."""
    global _work, _number
    _work, _number = Work(folder), numbers.get()
    os.chdir(_work.tree(_number))
    os.environ.update(_work.environment(_number))


def _test(item: WorkItem, chunks: Sequence[Sequence[Test]]) -> WorkResult:
    """Change the worker's copy and run each chunk in a process, until a test fails."""
    path = item.mutations[0].module_path
    before, timeout = path.stat(), CONFIG["cosmic-ray"]["timeout"]
    result = mutate_and_test(item.mutations, "true", timeout)  # If nothing covers it.
    for chunk in chunks:
        os.environ["MUTATION_SELECT"], files = _work.select(chunk, f"list{_number}")
        command = shlex.join([*ONE_BY_ONE, "-x", *files])
        result = mutate_and_test(item.mutations, command, timeout)
        if found := _NOT_RUN.search(result.output or ""):
            raise RuntimeError(f"{command}: {found[0]}")
        if result.test_outcome is not TestOutcome.SURVIVED:
            break
    # With another time Python would compile the file anew in every process.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return result


def _survived(result: WorkResult | None) -> bool:
    return result is not None and result.test_outcome is TestOutcome.SURVIVED


def _killer(result: WorkResult) -> str:
    found = _FAILED.search(result.output or "")
    return found[1] if found else _NO_TEST


def execute(
    work: Work, lane: str, mutants: Sequence[Mutant], plan: Plan, workers: int
) -> None:
    """Run a lane's tests for each mutant and store each result at once."""
    limits, slow = CONFIG["tests"], lane == "slow"
    numbers = multiprocessing.Queue()
    for number in range(workers):
        numbers.put(number)
    pool = ProcessPoolExecutor(
        workers, initializer=_start, initargs=(work.folder, numbers)
    )
    with use_db(str(work.folder / f"{lane}.sqlite")) as db, pool:
        known = {item.job_id for item in db.work_items}
        db.add_work_items(m.item for m in mutants if m.item.job_id not in known)
        running = {}
        for mutant in mutants:
            seconds = limits[lane], limits["first"]
            chunks = plan.choose(mutant.path, mutant.lines, slow, *seconds)
            running[pool.submit(_test, mutant.item, chunks)] = mutant
        for done, future in enumerate(as_completed(running), 1):
            mutant, result = running[future], future.result()
            if result.worker_outcome is not WorkerOutcome.NORMAL:
                raise RuntimeError(result.output)
            db.set_result(mutant.item.job_id, result)
            became = "survived" if _survived(result) else f"killed by {_killer(result)}"
            print(f"{lane} {done}/{len(mutants)} {mutant.path}: {became}", flush=True)


def run(work: Work, chosen: Sequence[Mutant], workers: int, again: bool) -> None:
    """Run both lanes, then the tests that killed, which must pass without a mutant."""
    commit = work.commit.read_text("utf-8").removesuffix("-dirty")
    changed = ["git", "diff", "--quiet", commit, "--", "fairjax", "tests"]
    if subprocess.run(changed).returncode:
        sys.exit(f"code or tests changed after commit {commit}: `record` them again.")
    work.copy(0)
    if work.pytest([*ONE_BY_ONE, "--collect-only"])[0]:
        sys.exit("the tests cannot be collected.")
    for number in range(1, workers):
        work.copy(number, of=work.tree(0))
    paths, limits = {one.path for one in chosen}, CONFIG["tests"]
    data = list(work.coverage.values())
    plan = Plan(
        work.tests, data, work.tree(0), paths, limits["exclude"], limits["always"]
    )
    for lane in LANES:
        results, quick = work.results(lane), work.results("quick")
        waiting = [
            one
            for one in chosen
            if one.equivalent is None
            and (lane == "quick" or _survived(quick[one.item.job_id]))
            and (
                one.item.job_id not in results
                or (again and _survived(results[one.item.job_id]))
                or _killer(results[one.item.job_id]) in CONFIG["tests"]["exclude"]
            )
        ]
        execute(work, lane, waiting, plan, workers)
    names = {_killer(one) for lane in LANES for one in work.results(lane).values()}
    selected, files = work.select(
        [plan.tests[name] for name in sorted(names & plan.tests.keys())], "killers"
    )
    code, output = work.pytest([*ONE_BY_ONE, *files], MUTATION_SELECT=selected)
    if files and code:
        sys.exit(f"{output}\nTests that fail without a mutant belong into `exclude`.")


def report(work: Work, chosen: Sequence[Mutant]) -> str:
    """Return the table of how many were killed, and a list of the survivors."""
    quick, slow = (work.results(lane) for lane in LANES)
    header = ["Place", "Mutants", "Equivalent", "Killed by the quick lane"]
    header += ["Killed by the whole", "Survivors that the slow lane tried", "Survived"]
    rows = []
    for place in (*CONFIG["sample"]["places"], "all"):
        here = [one for one in chosen if place in (one.place, "all")]
        tried = [one for one in here if not one.equivalent and one.item.job_id in quick]
        left = [one for one in tried if _survived(quick[one.item.job_id])]
        still = [
            one
            for one in left
            if _survived(slow.get(one.item.job_id, quick[one.item.job_id]))
        ]
        killed = (
            f"{len(tried) - len(those)} ({1 - len(those) / max(len(tried), 1):.1%})"
            for those in (left, still)
        )
        equivalent = sum(one.equivalent is not None for one in here)
        again = sum(one.item.job_id in slow for one in left)
        killed = *killed, f"{again} of {len(left)}"
        row = [place, len(tried) + equivalent, equivalent, *killed, len(still)]
        rows.append([str(cell) for cell in row])
    ended = [one for one in [*quick.values(), *slow.values()] if not _survived(one)]
    crashed = sum(_killer(one) == _NO_TEST for one in ended)
    listed = ["", f"Killed by {_NO_TEST}: {crashed} of {len(ended)}."]
    listed += ["", "Survivors of both lanes, each a file, a function and its change:"]
    for one in still:
        function = one.item.mutations[0].definition_name or "module"
        changes = differences(quick[one.item.job_id].diff).splitlines()
        changed = [f"`{line[1:].strip()}`" for line in changes if line[:1] in "-+"]
        changed = [text for text in changed if text != "``"]
        listed.append(f"\n- {one.path}, {function}: {' -> '.join(changed)}")
    return "\n".join(["", *tables.as_markdown(header, rows), *listed, "", ""])


def coverage(work: Work) -> str:
    """The branch coverage of the quick lane, and of both, as a table."""
    folders: dict[str, list[list[int]]] = {}
    for lanes in (["quick"], ["quick", "slow"]):
        whole = Coverage(data_file=None, branch=True, config_file=False)
        for lane in lanes:
            data = CoverageData(str(work.coverage[lane]))
            data.read()
            whole.get_data().update(data)
        output = work.folder / "coverage.json"
        whole.json_report(outfile=str(output), morfs=None)
        files = json.loads(output.read_text("utf-8"))["files"]
        counts: dict[str, list[int]] = {}
        for path, file in files.items():
            inside = path.rpartition("/fairjax/")[2].split("/")
            place = f"fairjax/{inside[0]}" if inside[1:] else "fairjax/*.py"
            of = file["summary"]
            done = of["covered_lines"] + of["covered_branches"]
            for name in (place, "all"):
                total = counts.setdefault(name, [0, 0])
                total[0] += done
                total[1] += of["num_statements"] + of["num_branches"]
        for name, pair in counts.items():
            folders.setdefault(name, []).append(pair)
    rows = [
        [name, *(f"{done / total:.1%}" for done, total in pairs)]
        for name, pairs in sorted(folders.items())
    ]
    header = ["Place", "Quick lane", "Quick and slow lanes"]
    return "\n".join(["", *tables.as_markdown(header, rows), "", ""])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python tests/mutation", description=__doc__)
    parser.add_argument("command", choices=("record", "run", "report"))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "mutation")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mutants", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="try survivors again")
    parser.add_argument("--write", action="store_true", help="write docs/testing.md")
    options, arguments = parser.parse_known_args()
    os.chdir(ROOT)
    work = Work(options.work)
    if options.command == "record":
        return record(work, options.workers, arguments)
    if arguments:
        parser.error(f"unrecognised arguments: {' '.join(arguments)}")
    chosen = sample(CONFIG, options.mutants, options.seed)
    if options.command == "run":
        run(work, chosen, options.workers, options.again)
    found = {"mutation": report(work, chosen), "coverage": coverage(work)}
    for name, rows in found.items():
        table = f"\nCommit {work.commit.read_text('utf-8')}:\n{rows}"
        print(table)
        if options.write:
            docs.put(DOCUMENT, name, table)
    return None


if __name__ == "__main__":
    main()
