"""What the MultiFair experiment says of its results: effects, verdicts, figures."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments.datasets.simulated_modalities import DEFAULT_LAW, Truth
from experiments.multifair import experiment as multifair
from experiments.multifair import report as multifair_report
from experiments.multifair.findings import (
    BEST,
    _methods_answer,
    _modalities_answer,
    _release_answer,
    _settings_answer,
    _truth_answer,
    release_tests,
)
from experiments.multifair.levels import effects, levels_answer
from experiments.multifair.names import FACTORS, GRID, digits
from experiments.multifair.results import Options
from experiments.multifair.verdicts import HEADLINE, better_or_worse
from fairjax.evaluation import Comparison, Evaluation
from fairjax.evaluation.names import EQUITY, GROUP_AUROC


def evaluation(value, seed):
    rng = np.random.default_rng(seed)
    return Evaluation(
        {m: value + 1e-4 * rng.normal(size=4) for m in HEADLINE},
        {m: value + 1e-4 * rng.normal(size=50) for m in HEADLINE},
        {},
        {},
        {},
    )


def grid_of(value):
    """A run whose grid has ``value(setting)`` as every headline metric."""
    rng = np.random.default_rng(0)
    noise = 1e-6 * rng.normal(size=(len(GRID), 50))
    evaluations = {}
    for place, setting in enumerate(GRID):
        title = f"dual_level_levels[{digits(setting)}]"
        if not any(setting):
            title = "joint_auxiliary"
        elif all(setting):
            title = "dual_level"
        repeats = np.full(4, value(setting)) + noise[place, :4]
        evaluations[title] = Evaluation(
            dict.fromkeys(HEADLINE, repeats),
            {m: value(setting) + noise[place] for m in HEADLINE},
            {},
            {},
            {},
        )
    return SimpleNamespace(evaluations=evaluations)


def test_effects_of_levels_by_hand():
    """.1 for the modality level, .2 for the group level, .05 more for both."""

    def value(setting):
        modality, group = setting[0] * setting[1], setting[2] * setting[3]
        return 0.5 + 0.1 * modality + 0.2 * group + 0.05 * modality * group

    found = effects(grid_of(value), "dual_level")["auroc"]
    # Averaged over what the other level does: one of its four settings is both.
    assert found["modality"].difference == pytest.approx(0.1 + 0.05 / 4, abs=1e-4)
    assert found["group"].difference == pytest.approx(0.2 + 0.05 / 4, abs=1e-4)
    assert found["together"].difference == pytest.approx(0.05, abs=1e-4)
    assert all(c.p_holm < 0.05 for c in found.values())


@pytest.mark.parametrize(
    ("modality", "group", "both", "words", "helps"),
    [
        # Any level costs .05, and both cost no more: that is no help.
        (-0.05, -0.05, -0.05, "AUROC higher", "Not shown."),
        (0.05, 0.05, 0.05, "AUROC lower", "Not shown."),
        (0.05, 0.05, 0.2, "AUROC higher", "Yes, in AUROC, equity-scaled AUROC."),
        (0.0, 0.0, 0.0, "no effect is shown", "Not shown."),
    ],
)
def test_levels_help_each_other_only_where_both_are_best(
    modality, group, both, words, helps
):
    def value(setting):
        on = setting[0] * setting[1], setting[2] * setting[3]
        return 0.5 + {(1, 0): modality, (0, 1): group, (1, 1): both}.get(on, 0.0)

    lines = levels_answer(grid_of(value))
    start = "- Dual-level reconciliation: both levels, minus the sum of each"
    (verdict,) = (line for line in lines if line.startswith(start))
    assert words in verdict
    assert "better" not in verdict
    (answer,) = (line for line in lines if "help each other? " in line)
    assert helps in answer


def test_one_repeat_tests_nothing():
    run = grid_of(lambda setting: 0.5 + 0.1 * setting[0])
    for found in run.evaluations.values():
        for metric in HEADLINE:
            found.repeats[metric] = found.repeats[metric][:1]
    said = [line for line in levels_answer(run) if line.startswith("- Dual")]
    assert said
    assert all("not tested" in line.lower() for line in said)


def test_no_effects_where_the_grid_was_not_run():
    run = grid_of(lambda setting: 0.5)
    del run.evaluations["dual_level_levels[0110]"]
    assert effects(run, "dual_level") == {}
    assert [line for line in levels_answer(run) if line] == [
        "- MultiFair, paper: the grid was not run.",
        "- Dual-level reconciliation: the grid was not run.",
    ]


def test_more_auroc_is_better_and_more_gap_worse():
    for metric in HEADLINE:
        good = metric in ("auroc", f"{EQUITY}/mean")
        assert better_or_worse(metric, SimpleNamespace(difference=0.1)) == (
            "better" if good else "worse"
        )
        assert better_or_worse(metric, SimpleNamespace(difference=-0.1)) == (
            "worse" if good else "better"
        )


def test_the_release_is_compared_with_the_paper():
    run = SimpleNamespace(
        evaluations={
            "multifair": evaluation(0.5, 0),
            "multifair_released": evaluation(0.6, 1),
        },
        histories={
            name: {"fairness_gate": np.full(3, share)}
            for name, share in (("multifair", 0.25), ("multifair_released", 0.5))
        },
    )
    found = release_tests(run)
    assert all(c.difference == pytest.approx(0.1, abs=1e-3) for c in found.values())
    text = _release_answer(run)
    assert "MultiFair, paper: 25%; MultiFair, released code: 50%" in text


def test_what_was_not_tested_is_not_said_to_be_equal():
    untested = SimpleNamespace(difference=0.2, low=0.1, high=0.3, p=1, p_holm=np.nan)
    found = SimpleNamespace(setting="")
    run = SimpleNamespace(
        predictions=dict.fromkeys(("joint", "cggm", "best_possible"), found),
        titles={"cggm": "CGGM", "best_possible": "Best"},
    )
    tests = {m: {"cggm": untested, "best_possible": untested} for m in HEADLINE}
    assert _methods_answer(run, tests) == ["- CGGM: not tested."]


def test_a_factor_is_told_from_its_level():
    """Direction between modalities takes .1 away, and nothing else does anything."""
    run = grid_of(lambda setting: 0.5 - 0.1 * setting[0])
    found = effects(run, "dual_level")["auroc"]
    assert found["modality direction"].difference == pytest.approx(-0.1, abs=1e-4)
    assert found["modality"].difference == pytest.approx(-0.1, abs=1e-4)
    for effect in ("modality magnitude", *FACTORS[2:], "group", "together"):
        assert found[effect].difference == pytest.approx(0, abs=1e-4)


def test_effects_are_said_for_what_they_are():
    run = grid_of(lambda setting: 0.5 - 0.1 * setting[0])
    lines = levels_answer(run)
    start = "- Dual-level reconciliation: "
    said = {
        line.removeprefix(start).split(":")[0]: line
        for line in lines
        if line.startswith(start)
    }
    direction = said["modality direction by itself"]
    assert "AUROC worse" in direction
    assert "equity-scaled AUROC worse" in direction
    # Less of a gap is better.
    assert "AUROC gap better" in direction
    assert "equalized-odds difference better" in direction
    for phrase in ("group direction by itself", "the group level"):
        assert said[phrase].endswith("**no effect is shown**.")
    rows = [line for line in lines if line.startswith("| modality direction by itself")]
    assert rows[0].count("-0.1000 [-0.100") == len(HEADLINE)
    # Cells in the order of the grid, each less the one with nothing on.
    cells = [line for line in lines if line.startswith(("| on |", "| off |"))]
    assert len(cells) == len(GRID) - 1
    for line, setting in zip(cells, GRID[1:], strict=True):
        words = [word.strip() for word in line.strip("|").split("|")]
        assert words[:4] == ["on" if on else "off" for on in setting]
        assert words[4].startswith("-0.1000" if setting[0] else ("+0.0000", "-0.0000"))


def test_the_heat_map_has_modalities_down_and_groups_across(monkeypatch):
    drawn = {}

    def keep(values, low, high, rows, columns, **words):
        drawn.update(values=values, rows=rows, columns=columns)

    monkeypatch.setattr(multifair_report.figures, "heat_map", keep)
    run = grid_of(lambda s: 0.5 + 0.1 * s[0] + 0.01 * s[1] + 0.03 * s[2] + 0.002 * s[3])
    multifair_report._heat_map(run, "dual_level")
    assert drawn["rows"][1:3] == ["modality: direction", "modality: magnitude"]
    assert drawn["columns"][1:3] == ["group: direction", "group: magnitude"]
    down, across = np.array([0, 0.1, 0.01, 0.11]), np.array([0, 0.03, 0.002, 0.032])
    np.testing.assert_allclose(drawn["values"], down[:, None] + across, atol=1e-4)


@pytest.mark.parametrize(("gain", "words"), [(0.1, "Yes, in"), (0.0, "No difference")])
def test_the_release_differs_where_it_does(gain, words):
    run = SimpleNamespace(
        evaluations={
            "multifair": evaluation(0.5, 0),
            "multifair_released": evaluation(0.5 + gain, 0 if gain else 1),
        },
        histories={
            name: {"fairness_gate": np.ones(3)}
            for name in ("multifair", "multifair_released")
        },
    )
    assert words in _release_answer(run)


def test_methods_are_better_worse_or_not_shown_to_differ():
    run = SimpleNamespace(
        predictions=dict.fromkeys(("joint", "cggm"), SimpleNamespace(setting="")),
        titles={"cggm": "CGGM"},
    )
    shown = Comparison(0.02, 0.01, 0.03, 0.001, 0.01)
    noise = Comparison(0.02, -0.01, 0.05, 0.3, 1.0)
    tests = {m: {"cggm": noise} for m in HEADLINE}
    assert _methods_answer(run, tests) == ["- CGGM: no difference is shown."]
    (gap,) = (m for m, words in HEADLINE.items() if words == "AUROC gap")
    for metric, verdict in (("auroc", "AUROC better"), (gap, "AUROC gap worse")):
        (line,) = _methods_answer(run, tests | {metric: {"cggm": shown}})
        assert line == f"- CGGM: {verdict} (+0.0200 [+0.0100, +0.0300], p 0.010)."


def test_modalities_are_compared_from_the_joint_models_side():
    history = np.zeros((1, 2, 3, 1))
    history[0, -1, :, 0] = (0.6, 0.7, 0.95)
    run = SimpleNamespace(
        evaluations={
            "joint": evaluation(0.9, 0),
            "only_labs": evaluation(0.7, 0),
            "logistic_regression": evaluation(0.95, 0),
        },
        histories={"joint": {"unimodal_auroc": history}},
    )
    text = _modalities_answer(run, ["labs"])
    assert "minus the AUROC of other models: labs alone +0.2000" in text
    assert "a logistic regression on summaries of all modalities -0.0500" in text
    assert "median over seeds: Joint training: labs 0.700." in text


def test_chosen_settings_are_counted_and_the_end_of_a_grid_named():
    lines = _settings_answer(
        {"penalty": {"0.05": 9, "0.2": 7, "1": 4}, "fairgrad": {"0.05": 2, "5": 18}}
    )
    assert lines == [
        "- Fairness penalty: 0.05 in 9, 0.2 in 7, 1 in 4 of 20 folds.",
        (
            "- FairGrad: 0.05 in 2, 5 in 18 of 20 folds; most often 5, at the end of "
            "the grid. Settings beyond the grid may be better."
        ),
    ]


def test_a_shortfall_of_the_truth_is_of_the_group_that_has_it():
    names = [f"{GROUP_AUROC}/group={group}" for group in "AB"]

    def of_groups(a, b):
        found = evaluation(0.5, 0)
        for name, value in zip(names, (a, b), strict=True):
            noise = 1e-4 * np.random.default_rng(1).normal(size=50)
            found.repeats[name] = value + noise[:4] * (value != 0.9)
            found.bootstrap[name] = value + noise * (value != 0.9)
        return found

    rng = np.random.default_rng(0)
    label, group = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    # The static scores rank A perfectly and B the wrong way round.
    ranks = np.where(group == 0, label, -label) + 0.1 * rng.random(400)
    table = SimpleNamespace(
        label=label, attributes=pd.DataFrame({"group": np.array(["A", "B"])[group]})
    )
    run = SimpleNamespace(
        evaluations={
            "joint": of_groups(0.9, 0.7),
            "only_static": of_groups(0.6, 0.65),
            BEST: of_groups(0.9, 0.9),
        },
        predictions=dict.fromkeys(("joint", BEST), SimpleNamespace(setting="")),
        titles={"joint": "Joint training"},
        splits=SimpleNamespace(attributes=("group",), table=table),
    )
    lines = _truth_answer(run, ["static"], Truth(DEFAULT_LAW, ranks[:, None]))
    assert (
        "- static: A 0.638, 1.000, reached 0.600; B 0.638, 0.000, reached 0.650."
        in (lines)
    )
    (line,) = (text for text in lines if text.startswith("- Joint training"))
    assert line.endswith(": below the best possible in B.")


def test_only_methods_about_fairness_may_lose_auroc_for_it():
    found = multifair._tolerances(Options(tolerance=0.004))
    assert found == {
        "ogm_ge": -np.inf,
        "group_dro": 0.004,
        "penalty": 0.004,
        "fairgrad": 0.004,
    }
