"""Verdicts on claims from their tests, and sentences for single tests.

A test *shows* a difference that is significant after Holm's correction; a difference
that is not shown is not refuted.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from experiments.reporting import markdown
from experiments.reporting.differences import clear, span, untested, with_p
from fairjax.evaluation import Comparison, Evaluation

Verdict = Literal[
    "holds", "holds in part", "does not hold", "not shown", "not tested", "not run"
]
Evaluations = Mapping[str, Evaluation]


class Claim(NamedTuple):
    """A claim of the paper, the verdict on it, and the tests for the verdict.

    Attributes:
      text: The claim, in the paper's sense.
      measured: The quantities that were computed to test it.
      verdict: One of `Verdict`.
      tests: Compared quantities -> the comparison, after Holm over all comparisons of
        the verdict. If there are very many, the comparisons most in favour.
      more: Sentences with further observations.
    """

    text: str
    measured: str
    verdict: Verdict
    tests: Mapping[str, Comparison]
    more: Sequence[str] = ()


def missing(known: Collection[str], names: Iterable[str]) -> list[str]:
    """Lists the configurations that were not run."""
    return [name for name in names if name not in known]


def shows(c: Comparison) -> int:
    """Returns the sign of a difference that is significant after Holm, else 0.

    Example:
      >>> shows(Comparison(-0.1, -0.2, 0.0, 0.01, 0.04))
      -1
      >>> shows(Comparison(-0.1, -0.3, 0.1, 0.2, 0.4))
      0
    """
    if not clear(c):
        return 0
    return 1 if c.difference > 0 else -1


def of_all(found: Iterable[Comparison], *, wanted: int) -> Verdict:
    """Returns the verdict on a claim that says the same of several tests.

    The claim holds if all tests show the wanted sign, and in part if some do, whatever
    the other tests show. The claim does not hold if some tests show the other sign and
    none the wanted sign.

    Args:
      found: Comparisons after Holm.
      wanted: The sign in favour of the claim.
    """
    found = list(found)
    if untested(found):
        return "not tested"
    signs = [shows(c) for c in found]
    if wanted in signs:
        return "holds" if set(signs) == {wanted} else "holds in part"
    return "does not hold" if -wanted in signs else "not shown"


def one_of(found: Iterable[Comparison]) -> Verdict:
    """Returns the verdict on a claim that one of several differences is above 0.

    The claim holds if one difference is significantly above 0, and does not hold if all
    are significantly below 0.
    """
    found = list(found)
    if untested(found):
        return "not tested"
    signs = {shows(c) for c in found}
    if 1 in signs:
        return "holds"
    return "does not hold" if signs == {-1} else "not shown"


def of_two_parts(first: int, second: int) -> Verdict:
    """Returns the verdict on a claim of two parts.

    A part is 1 if shown, -1 if refuted, and 0 if neither. If one part is shown and the
    other part is refuted, the claim as a whole stays open.

    Example:
      >>> of_two_parts(1, 1), of_two_parts(0, 1)
      ('holds', 'holds in part')
      >>> of_two_parts(0, -1), of_two_parts(1, -1), of_two_parts(0, 0)
      ('does not hold', 'not shown', 'not shown')
    """
    if first + second == 2:
        return "holds"
    if first + second == 1:
        return "holds in part"
    return "does not hold" if first + second < 0 else "not shown"


def described(c: Comparison) -> str:
    """Formats the difference, its interval, and its p-value if there was a test."""
    return f"{span(c)}, not tested" if math.isnan(c.p_holm) else with_p(c)


def sentences(claim: Claim) -> list[str]:
    """Writes a claim's tests and further observations in Markdown."""
    found = claim.tests.items()
    return [
        *(f"{markdown.escape(what)}: {described(c)}." for what, c in found),
        *claim.more,
    ]
