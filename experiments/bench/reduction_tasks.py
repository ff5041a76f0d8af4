"""The reduction beside fairlearn's, and the whole pipeline at the paper's scale."""

import functools
import json
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from experiments.bench.mitigation_tasks import Row, clocked, table_of
from experiments.bench.timing import timed
from fairjax.mitigation import ExponentiatedGradient, FlaxClassifier

# Both stop at it, so that both are as far from the best mixture.
GAP = 1e-3
# Of the paper's table, whose numbers of records and features the simulator has.
EIGHT = ("base", "dir", "egr", "eo", "dir_egr", "egr_eo", "dir_eo", "dir_egr_eo")


def measure_reduction(
    rows: int, features: int, groups: int, *, rounds: int, fairlearn: bool = True
) -> Row:
    """Exponentiated gradient around logistic regression, to the same gap."""
    values, group = table_of(rows, features, groups)
    rng = np.random.default_rng(1)
    slope = 0.5 * rng.standard_normal(features)
    chance = 1 / (1 + np.exp(-values @ slope - 0.2 * (group - groups / 2)))
    label = (rng.random(rows) < chance).astype(np.int64)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    last: dict[str, ExponentiatedGradient] = {}

    def fit(name: str, estimator: Any) -> None:
        fair = ExponentiatedGradient(estimator, gap_tolerance=GAP, random_state=0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "no mixture of the learner's")
            last[name] = fair.fit(values, label, sensitive_features=group)

    ours = functools.partial(fit, "ours", FlaxClassifier())
    theirs = functools.partial(fit, "theirs", LogisticRegression())
    found = clocked(ours, theirs if fairlearn else None, rounds)
    found.pop("last")
    gaps = ", ".join(f"{last[name].best_gap_:.4f}" for name in last)
    compared: dict[str, Any] = {}
    if fairlearn:
        compared = {"against": "fairlearn", "their_reached": last["theirs"].cost_}
    return Row(
        "reduction, logistic regression",
        rows,
        features,
        groups,
        reached=last["ours"].cost_,
        of=f"error at gaps of {gaps}",
        **compared,
        **found,
    )


def measure_pipeline(rows: int, *, learner: str) -> Row:
    """All eight configurations on simulated members, in a process of their own.

    `reached` is the most memory that it held, in GB.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "experiments.bench.reduction_tasks"),
            *(str(rows), learner, folder),
        ]
        seconds = timed(lambda: subprocess.run(command, check=True))
        told = json.loads((Path(folder) / "told.json").read_text(encoding="utf-8"))
    return Row(
        f"eight configurations, {learner}",
        rows,
        told["features"],
        told["groups"],
        milliseconds=1e3 * seconds,
        first_seconds=seconds,
        reached=told["peak_gb"],
        of="most memory held, GB",
    )


def _pipeline(rows: int, learner: str, folder: Path) -> None:
    """One split of the paper's protocol, at scale, and what it took."""
    # Imported here: the parent needs none of it.
    from experiments.intersectional_scale import eight_configurations

    told = eight_configurations(rows, learner=learner)
    peak = sum(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    told["peak_gb"] = peak * 1024 / 1e9
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    _pipeline(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
