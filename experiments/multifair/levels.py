"""Tested effects of a grid's factors and levels, in tables and words."""

import numpy as np

from experiments.multifair.names import CORNERS, FACTORS, GRID, TITLES, digits
from experiments.multifair.results import SAID, Results
from experiments.multifair.verdicts import HEADLINE, better_or_worse
from experiments.reporting import tables
from experiments.reporting.differences import clear, span, untested, with_p
from fairjax.evaluation import Comparison, Evaluation, compare, contrast, holm

# The places in `FACTORS` of each level's two factors.
_LEVELS = {"modality": (0, 1), "group": (2, 3)}
# Settings with both factors of one level on, and the other level off.
_ALONE = ((1, 1, 0, 0), (0, 0, 1, 1))
_PHRASES = {
    "modality": "the modality level",
    "group": "the group level",
    "together": "both levels, minus the sum of each",
    **{factor: f"{factor} by itself" for factor in FACTORS},
}


def grid(results: Results, name: str) -> dict[tuple[int, ...], Evaluation] | None:
    """Returns a grid's evaluations by setting, or None if the grid was not run."""
    nothing, everything, rest = CORNERS[name]
    found = {}
    for setting in GRID:
        title = f"{rest}[{digits(setting)}]"
        if not any(setting):
            title = nothing
        elif all(setting):
            title = everything
        if title not in results.evaluations:
            return None
        found[setting] = results.evaluations[title]
    return found


def effects(results: Results, name: str) -> dict[str, dict[str, Comparison]]:
    """Computes metric -> effect -> change of the metric, with Holm over the effects.

    - A level's effect: both of its factors on, less both off, averaged over the
      settings of the other level.
    - A factor's effect: on less off, averaged over the settings of the other three.
    - Together: the effect of both levels, less the sum of each level's effect alone.
    """
    cells = grid(results, name)
    if cells is None:
        return {}
    order, multiplied = [cells[setting] for setting in GRID], _coefficients()
    found = {
        (metric, effect): contrast(order, list(coefficients), metric)
        for metric in HEADLINE
        for effect, coefficients in multiplied.items()
    }
    table: dict[str, dict[str, Comparison]] = {metric: {} for metric in HEADLINE}
    for (metric, effect), c in holm(found).items():
        table[metric][effect] = c
    return table


def _coefficients() -> dict[str, np.ndarray]:
    """Returns effect -> coefficients of the grid's cells, in the grid's order."""
    on = np.array(GRID)
    found = {}
    for level, factors in _LEVELS.items():
        both = on[:, factors].sum(axis=1)
        found[level] = np.where(both == 2, 1.0, np.where(both == 0, -1.0, 0.0))
    pure = np.all(on[:, [0, 2]] == on[:, [1, 3]], axis=1)
    sign = np.where(on[:, 0] == on[:, 2], 1.0, -1.0)
    for place, factor in enumerate(FACTORS):
        found[factor] = np.where(on[:, place] == 1, 1.0, -1.0)
    averaged = {effect: c / np.sum(c > 0) for effect, c in found.items()}
    return {**averaged, "together": np.where(pure, sign, 0.0)}


def levels_answer(results: Results) -> list[str]:
    """Writes lines of Markdown: verdicts, effects and cells of each grid."""
    lines = [""]
    for name, (nothing, everything, _) in CORNERS.items():
        found, title = effects(results, name), TITLES[everything]
        said = {"title": title, "start": TITLES[nothing].lower()}
        if not found:
            lines += [SAID["grid.not_run"].format(**said), ""]
            continue
        lines += [f"- {title}: {_verdict(found, e)}." for e in _PHRASES]
        lines += [
            f"- {title}: do the levels help each other? {_help(results, name, found)}",
            "",
            SAID["grid.effects"].format(**said),
            "",
            *_effects_table(found),
            "",
            SAID["grid.cells"].format(**said),
            "",
            *_cells_table(results, name),
            "",
        ]
    return lines


def _verdict(found: dict[str, dict[str, Comparison]], effect: str) -> str:
    of = {metric: row[effect] for metric, row in found.items()}
    shown = [
        f"{HEADLINE[metric]} {_direction(metric, effect, c)}"
        for metric, c in of.items()
        if clear(c)
    ]
    nothing = "not tested" if untested(of.values()) else "no effect is shown"
    return f"{_PHRASES[effect]}: **{', '.join(shown) or nothing}**"


def _direction(metric: str, effect: str, c: Comparison) -> str:
    # Two levels that do the same harm differ from their sum, which is not "better".
    if effect == "together":
        return "higher" if c.difference > 0 else "lower"
    return better_or_worse(metric, c)


def _help(results: Results, name: str, found: dict[str, dict[str, Comparison]]) -> str:
    """Says where both levels are better than the sum of each, and than either alone."""
    cells = grid(results, name)
    assert cells is not None
    together = {metric: row["together"] for metric, row in found.items()}
    where = []
    for metric, c in together.items():
        alone = [compare(cells[1, 1, 1, 1], cells[one], metric) for one in _ALONE]
        if (
            all(part.low > 0 or part.high < 0 for part in alone)
            and clear(c)
            and {better_or_worse(metric, d) for d in (c, *alone)} == {"better"}
        ):
            where.append(HEADLINE[metric])
    if where:
        return f"Yes, in {', '.join(where)}."
    return "Not tested." if untested(together.values()) else "Not shown."


def _effects_table(found: dict[str, dict[str, Comparison]]) -> list[str]:
    header = ["Effect", *HEADLINE.values()]
    rows = [
        [phrase, *(with_p(found[metric][effect]) for metric in HEADLINE)]
        for effect, phrase in _PHRASES.items()
    ]
    return tables.as_markdown(header, rows)


def _cells_table(results: Results, name: str) -> list[str]:
    cells = grid(results, name)
    assert cells is not None
    header = [*(factor.capitalize() for factor in FACTORS), *HEADLINE.values()]
    rows = [
        [
            *("on" if on else "off" for on in setting),
            *(span(compare(cells[setting], cells[GRID[0]], m)) for m in HEADLINE),
        ]
        for setting in GRID[1:]
    ]
    return tables.as_markdown(header, rows)
