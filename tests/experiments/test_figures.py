"""Figures of made-up numbers: what is drawn is what was given."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from experiments.reporting import figures, training_figures
from fairjax.audit.figures import COLOURS
from fairjax.evaluation import Evaluation
from fairjax.evaluation.figures import gaps

STEPS = np.array([0, 10, 20])


def evaluation(values, *, corrected=np.nan):
    return Evaluation(
        {metric: np.array([v, v]) for metric, v in values.items()},
        {metric: v + np.array([-0.01, 0.0, 0.01]) for metric, v in values.items()},
        dict.fromkeys(values, 0.02),
        dict.fromkeys(values, corrected),
        dict.fromkeys(values, 0.5),
    )


def test_learning_curves_are_medians_and_quartiles():
    labs = np.array([[0.5, 0.6, 0.7], [0.5, 0.8, 0.9], [0.6, 0.7, 0.8]])
    notes = 0.1 + labs
    figure = training_figures.learning_curves(
        {"Joint": {"labs": labs, "notes": notes}, "MultiFair": {"notes": notes}},
        STEPS,
        title="Made up",
    )
    joint, multifair = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["Joint", "MultiFair"]
    np.testing.assert_allclose(joint.lines[0].get_ydata(), [0.5, 0.7, 0.8])
    np.testing.assert_allclose(joint.lines[0].get_xdata(), STEPS)
    band = joint.collections[0].get_paths()[0].get_extents()
    np.testing.assert_allclose([band.ymin, band.ymax], [0.5, 0.85])
    # A modality has its colour in every panel, and its name once.
    assert joint.lines[1].get_color() == multifair.lines[0].get_color() == COLOURS[1]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["labs", "notes"]
    assert "validation AUROC" in joint.get_ylabel()


def test_one_number_over_training():
    values = np.array([[0.2, 0.1, 0.05], [0.4, 0.3, 0.15]])
    figure = training_figures.over_training(
        {"Joint": values, "MultiFair": values / 2}, STEPS, title="t", label="AUROC gap"
    )
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [0.15, 0.1, 0.05])
    assert axes.get_ylabel() == "AUROC gap, median and quartiles"


def test_heat_map_writes_each_number_with_its_interval():
    values = np.array([[0.04, -0.04], [0.0, np.nan]])
    figure = figures.heat_map(
        values,
        values - 0.01,
        values + 0.01,
        ["without balance", "without fairness"],
        ["AUROC", "Gap"],
        title="Made up",
        label="difference",
    )
    axes, bar = figure.axes
    cells = [text.get_text() for text in axes.texts]
    assert cells == [
        "+0.040\n[+0.030, +0.050]",
        "-0.040\n[-0.050, -0.030]",
        "+0.000\n[-0.010, +0.010]",
        "-",
    ]
    weights = [text.get_weight() for text in axes.texts]
    assert weights == ["bold", "bold", "normal", "normal"]
    colours = [text.get_color() for text in axes.texts]
    assert colours == ["white", "white", "black", "black"]
    image = axes.images[0]
    assert image.get_clim() == (-0.04, 0.04)
    middle = np.array(image.to_rgba(0.0)[:3])
    assert middle.min() > 0.95
    below, above = (to_hex(image.to_rgba(v)) for v in (-0.04, 0.04))
    assert (below, above) == ("#7f3b08", "#2d004b")
    assert [t.get_text() for t in axes.get_xticklabels()] == ["AUROC", "Gap"]
    assert bar.get_ylabel() == "difference"


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_heat_map_of_nothing(value):
    none = np.full((1, 1), value)
    figure = figures.heat_map(none, none, none, ["a"], ["b"], title="", label="")
    assert figure.axes[0].images[0].get_clim() == (-1, 1)


def value_map(values, **options):
    values = np.array(values)
    rows, columns = ("Base", "EO", "EGR")[: len(values)], ("a", "b", "c")
    return figures.value_map(
        values, rows, columns[: values.shape[1]], title="t", label="v", **options
    )


def test_value_map_diverges_from_parity_and_hatches_what_is_undefined():
    axes, bar = value_map([[0.3, -0.1], [np.nan, -0.001]], parity=0.0).axes
    assert [text.get_text() for text in axes.texts] == ["0.30", "-0.10", "0.00"]
    assert axes.images[0].get_clim() == (-0.3, 0.3)
    (hatched,) = axes.patches
    assert hatched.get_hatch() == "///"
    # In the first column of the second row.
    assert hatched.get_xy() == (-0.5, 0.5)
    assert bar.get_ylabel() == "v"


def test_value_map_of_ratios_is_even_on_both_sides():
    axes, bar = value_map(
        [[1.0, 2.0, 0.5], [0.0, 9.0, np.inf]], parity=1, ratio=True
    ).axes
    shades = axes.images[0].get_array()
    np.testing.assert_allclose(shades[0], [0, 1, -1])
    # What is further off than a quarter or four times has the last colour.
    np.testing.assert_allclose(shades[1, :2], [-2, 2])
    assert [text.get_text() for text in axes.texts][3:] == ["0.00", "9.00"]
    assert len(axes.patches) == 1
    ticks = [tick.get_text() for tick in bar.get_yticklabels()]
    assert ticks == ["0.25", "0.5", "1", "2", "4"]


@pytest.mark.parametrize(
    ("values", "extend"),
    [
        ([1.0, 4.0, 0.25], "neither"),
        ([1.0, 0.2], "min"),
        ([1.0, 4.5], "max"),
        ([0.0, 9.0], "both"),
    ],
)
def test_colours_that_end_before_the_ratios_do_have_an_arrow(values, extend):
    figure = value_map([values], parity=1.0, ratio=True)
    assert figure.axes[0].images[0].colorbar.extend == extend


def test_value_map_without_a_parity_or_any_value():
    axes, _ = value_map([[0.2, 0.6], [0.4, 0.4]]).axes
    assert axes.images[0].get_clim() == (0.2, 0.6)
    axes, _ = value_map([[np.nan]], parity=0.0).axes
    assert axes.images[0].get_clim() == (-1, 1)


def test_tradeoff_of_any_two_metrics():
    points = {
        "Joint": evaluation({"es": 0.7, "gap": 0.1}),
        "Other": evaluation({"es": 0.6, "gap": 0.2}),
    }
    figure = figures.tradeoff(
        {"Family": [("1", points["Joint"]), ("2", points["Other"])]},
        points,
        title="t",
        x=figures.Axis("gap", "AUROC gap"),
        y=figures.Axis("es", "ES-AUROC"),
        baseline="Joint",
    )
    (axes,) = figure.axes
    family, joint, other = axes.lines
    np.testing.assert_allclose(family.get_xydata(), [[0.1, 0.7], [0.2, 0.6]])
    np.testing.assert_allclose(joint.get_xydata(), [[0.1, 0.7]])
    assert (joint.get_color(), other.get_color()) == ("#000000", "#777777")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("AUROC gap", "ES-AUROC")


@pytest.mark.parametrize("corrected", [0.08, np.nan])
def test_gaps_show_a_correction_only_where_there_is_one(corrected):
    given = {"Joint": evaluation({"gap/sex": 0.1, "gap/age": 0.2}, corrected=corrected)}
    figure = gaps(
        given, {"sex": "gap/sex", "age": "gap/age"}, title="t", label="AUROC gap"
    )
    assert [axes.get_title() for axes in figure.axes] == ["sex", "age"]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert ("bias-corrected" in words) == np.isfinite(corrected)
    assert "noise floor" in words
    drawn = [line.get_xdata() for line in figure.axes[1].lines if len(line.get_xdata())]
    np.testing.assert_allclose(drawn[0], [0.2])


@pytest.mark.slow
def test_the_same_figure_is_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        figure = training_figures.over_training(
            {"Joint": np.ones((2, 3))}, STEPS, title="$1 to $2", label="x"
        )
        figures.save(figure, tmp_path / folder, "one")
    one, two = (tmp_path / f / "one.png" for f in ("a", "b"))
    assert one.read_bytes() == two.read_bytes()


def test_few_colours_are_near_those_drawn():
    """The ends of a colour bar cover few pixels, and are kept all the same."""
    channels = np.meshgrid(*[np.linspace(0, 255, 12)] * 3, indexing="ij")
    drawn = np.full((80, 80, 3), 255, np.uint8)
    drawn.reshape(-1, 3)[: 12**3] = np.stack(channels, -1).reshape(-1, 3)
    image = figures.palette(Image.fromarray(drawn))
    assert image.mode == "P"
    moved = np.abs(np.asarray(image.convert("RGB"), int) - drawn)
    # 1,728 colours spread over the whole cube share 256.
    assert moved.max() <= 40
    assert (moved[40:] == 0).all()
