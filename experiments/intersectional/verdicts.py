"""From tests of a claim to its verdict, and the words for single tests.

A test *shows* a difference where it is beyond noise after Holm's correction; what is
not shown is not refuted.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from experiments.reporting import markdown
from experiments.reporting.differences import clear, span, untested
from fairjax.evaluation import Comparison, Evaluation

Verdict = Literal[
    "holds", "holds in part", "does not hold", "not shown", "not tested", "not run"
]
Evaluations = Mapping[str, Evaluation]


class Claim(NamedTuple):
    """What the paper says, whether it holds, and the tests that say so.

    Attributes:
      text: In the paper's sense.
      measured: What was computed for it.
      verdict: See `Verdict`.
      tests: What was compared -> the comparison, after Holm over all that the verdict
        is from; of very many, those that speak for the claim most.
      more: Sentences on what else was seen.
    """

    text: str
    measured: str
    verdict: Verdict
    tests: Mapping[str, Comparison]
    more: Sequence[str] = ()


def missing(known: Collection[str], names: Iterable[str]) -> list[str]:
    """The configurations that were not run."""
    return [name for name in names if name not in known]


def shows(c: Comparison) -> int:
    """The sign of a difference beyond noise, after Holm; 0 of one within it.

    Example:
      >>> shows(Comparison(-0.1, -0.2, 0.0, 0.01, 0.04))
      -1
      >>> shows(Comparison(-0.1, -0.3, 0.1, 0.2, 0.4))
      0
    """
    if not clear(c):
        return 0
    return 1 if c.difference > 0 else -1


def judged(found: Iterable[Comparison], *, wanted: int) -> Verdict:
    """The verdict on a claim that says the same of several tests.

    It holds if all of them show the wanted sign, and in part if some do, whatever the
    others show. It does not hold if some show the other sign and none the wanted.

    Args:
      found: After Holm.
      wanted: The sign that speaks for the claim.
    """
    found = list(found)
    if untested(found):
        return "not tested"
    signs = [shows(c) for c in found]
    if wanted in signs:
        return "holds" if set(signs) == {wanted} else "holds in part"
    return "does not hold" if -wanted in signs else "not shown"


def one_of(found: Iterable[Comparison]) -> Verdict:
    """The verdict on a claim that one of several differences is above 0.

    It holds if one is beyond noise, and does not hold if all are below 0 beyond it.
    """
    found = list(found)
    if untested(found):
        return "not tested"
    signs = {shows(c) for c in found}
    if 1 in signs:
        return "holds"
    return "does not hold" if signs == {-1} else "not shown"


def of_two_parts(first: int, second: int) -> Verdict:
    """The verdict on a claim of two parts; of each, 1: shown, -1: refuted, 0: neither.

    One part shown and the other refuted leaves the claim as a whole open.

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


def p_text(c: Comparison) -> str:
    """The p-value after Holm; a dash before it, so that no other is taken for it."""
    return markdown.p_value(c.p_holm)


def told(c: Comparison) -> str:
    """The difference, its interval and its p-value, where there was a test."""
    tested = "not tested" if math.isnan(c.p_holm) else f"p {p_text(c)}"
    return f"{span(c)}, {tested}"


def sentences(claim: Claim) -> list[str]:
    """What a claim's tests say, and what else was seen, in Markdown."""
    tests = [f"{markdown.escape(what)}: {told(c)}." for what, c in claim.tests.items()]
    return [*tests, *claim.more]
