"""Measures the paper's whole table at the paper's scale, on simulated members.

The benchmark runs one split of the paper's protocol with all eight configurations,
every subgroup and every metric. A separate process runs it, so that only its memory is
measured.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.mitigation_tasks import Row
from experiments.bench.timing import timed
from experiments.core.lanes import num_cores
from experiments.datasets.simulated_subgroups import simulate
from experiments.intersectional.groups import SUBGROUP, composite
from experiments.intersectional.models import Division, fitted_scores
from experiments.intersectional.paper import evaluate_paper, paper_parts
from experiments.intersectional.results import Options
from experiments.intersectional.stages import PAPER
from fairjax.evaluation import cohort

# Combinations with a smaller fraction of the members, or fewer of either outcome, are
# merged, which leaves ten subgroups.
_RARE = 0.02
_OUTCOMES = 10


def measure_pipeline(rows: int, *, learner: str, iterations: int = 50) -> Row:
    """Measures eight configurations around a learner; the result is memory, in GB."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        command = [
            *(sys.executable, "-m", __spec__.name),
            *(str(rows), learner, str(iterations), str(told)),
        ]
        held: list[float] = []
        seconds = timed(lambda: held.append(_most_held(command)))
        found = json.loads(told.read_text(encoding="utf-8"))
    return Row(
        f"eight configurations, {learner}",
        rows,
        found["features"],
        found["groups"],
        milliseconds=1e3 * seconds,
        first_seconds=seconds,
        reached=held[0],
        of="GB, the most that all processes held at a time",
    )


def _most_held(command: list[str]) -> float:
    """Runs a command, and returns the peak memory of all its processes, in GB.

    Memory is read ten times a second. Pages that processes share count for each
    process. The result is NaN if there is no /proc.

    Raises:
      CalledProcessError: If the command fails.
    """
    most = 0.0 if Path("/proc/self/statm").exists() else float("nan")
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            most = max(most, _held(process.pid)) if most == most else most
            time.sleep(0.1)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return most / 1e9


def _held(pid: int) -> float:
    """Returns the bytes of memory of a process and of its child processes."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        started = [
            int(child)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for child in (thread / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        # The process has ended meanwhile.
        return 0.0
    return pages * resource.getpagesize() + sum(map(_held, started))


def eight_configurations(
    rows: int, learner: Any, iterations: int, work: Path
) -> dict[str, int]:
    """Computes the table of one split.

    Args:
      rows: Number of members.
      learner: Name of a learner of `experiments.intersectional.learners`.
      iterations: Maximum iterations of the reduction.
      work: Folder of finished fits.

    Returns:
      The numbers of features, subgroups and values.
    """
    found = composite(
        simulate(rows, seed=0)[0],
        min_patients=round(_RARE * rows),
        min_outcomes=_OUTCOMES,
    )
    options = Options(
        dataset="simulated_subgroups", learner=learner, iterations=iterations
    )
    wanted = list(PAPER.values())
    parts = paper_parts(found, 1, options.seed)
    train = np.flatnonzero(parts[0].train)
    # Without the encoder, which would add the squares of the study's 177 features.
    values = found.table.features.to_numpy(np.float32)
    values = (values - values[train].mean(axis=0)) / values[train].std(axis=0)
    division = Division("paper", found, values[None], [train])
    scores, _ = fitted_scores(
        division, wanted, options, work, processes=num_cores(), advance=lambda: None
    )
    members = cohort(
        found.table.label,
        found.table.attributes,
        references={SUBGROUP: found.reference},
        min_support=_OUTCOMES,
    )
    table = evaluate_paper(wanted, scores, parts, found, members, options)
    return {
        "features": division.inputs.shape[2],
        "groups": len(found.levels),
        "values": sum(len(values) for values in table.values.values()),
    }


if __name__ == "__main__":
    members, name, most, target = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        taken = eight_configurations(int(members), name, int(most), Path(scratch))
    Path(target).write_text(json.dumps(taken), encoding="utf-8")
