"""The effect of the kind of threshold: one for each subgroup, or one for all.

A threshold that maximises a subgroup's F1 score alone ignores the other subgroups, and
is noisy if the subgroup is small. Both effects make rates differ more than the model's
scores do. Under either kind, every configuration with thresholds has the same scores.
"""

from collections.abc import Sequence

from experiments.intersectional import claims
from experiments.intersectional.results import SAID, Results
from experiments.intersectional.stages import PAPER
from experiments.intersectional.tables import full_title
from experiments.intersectional.verdicts import Claim, described, missing, sentences
from experiments.reporting import markdown, tables
from fairjax.evaluation import Comparison, compare, holm
from fairjax.evaluation.names import F1

_HEADER = ("F1", "Balance", "Disparity", "DI", "SPD", "EOD", "AOD")
_SUMMARIES = {claims.DISPARITY: "disparity", claims.BALANCE: "balance"}
_METRICS = (F1, claims.BALANCE, claims.DISPARITY, *claims.DISTANCES)


def thresholds(results: Results, other: str, under: Sequence[Claim]) -> list[str]:
    """Compares configurations under both kinds, and lists claims under the other kind.

    Args:
      results: Results of the run.
      other: The kind that was not chosen.
      under: The paper's claims, with decisions by the other kind of threshold.
    """
    known = {name: claims.with_summaries(e) for name, e in results.evaluations.items()}
    pairs = {
        title: f"{title}[{other}]" for title in known if f"{title}[{other}]" in known
    }
    drawn = [name for name in PAPER if name in known and name not in pairs]
    shown = [title for pair in pairs.items() for title in pair] + drawn
    rows = [
        [full_title(results, title)]
        + [markdown.number(known[title].mean(metric), 3) for metric in _METRICS]
        for title in shown
    ]
    start = SAID["kinds.start"].format(
        whose=SAID[f"kinds.{results.options.thresholds}"]
    )
    lines = [start, "", *tables.as_markdown(["Configuration", *_HEADER], rows), ""]
    for metric, what in _SUMMARIES.items():
        found = holm(
            {
                full_title(results, two): compare(known[two], known[one], metric)
                for one, two in pairs.items()
            }
        )
        lines += _listed(SAID["kinds.less"].format(what=what.capitalize()), found)
    if "dir" in pairs and not missing(known, ("base", "dir_egr", "egr")):
        base, one = pairs["base"], pairs["dir"]
        found = holm(
            {
                f"{what} of {full_title(results, one)} less "
                f"{full_title(results, two)}": compare(known[one], known[two], metric)
                for metric, what in _SUMMARIES.items()
                for two in (base, "egr", "dir_egr")
            }
        )
        lines += _listed(SAID["kinds.repair"], found)
    start = SAID["kinds.claims"].format(other=other)
    lines += ["", start, ""]
    for number, claim in enumerate(under, 1):
        lines.append(f"- {number}. {claim.text} {claim.verdict.capitalize()}.")
        lines += [f"    - {sentence}" for sentence in sentences(claim)]
    return lines


def _listed(start: str, found: dict[str, Comparison]) -> list[str]:
    lines = [f"- {start}"]
    lines += [f"    - {markdown.escape(k)} {described(c)}" for k, c in found.items()]
    return lines
