"""The conventions of the public interface: docstrings, signatures, contracts."""

import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import pytest

import fairjax
from fairjax import losses, methods, steps

MODULES = [fairjax] + [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(fairjax.__path__, "fairjax.")
    if not any(part.startswith("_") for part in found.name.split("."))
]


def public_names():
    """Every public function and class, at the place where it is defined."""
    for module in MODULES:
        for name, value in vars(module).items():
            defined = getattr(value, "__module__", None) == module.__name__
            if defined and not name.startswith("_") and callable(value):
                yield pytest.param(value, id=f"{module.__name__}.{name}")


def is_function(value):
    return inspect.isfunction(inspect.unwrap(value)) and not inspect.isclass(value)


NAMES = list(public_names())
FUNCTIONS = [p for p in NAMES if is_function(p.values[0])]
CLASSES = [p for p in NAMES if inspect.isclass(p.values[0])]
STEPS = {
    "project_conflicts": steps.project_conflicts(),
    "balance_magnitudes": steps.balance_magnitudes(),
    "combine": steps.combine(),
    "aligned_mtl": steps.aligned_mtl(),
    "by_level": steps.by_level([[0, 1], [2]], steps.combine()),
    "config": steps.config(),
    "dwa": steps.dwa(),
    "fairgrad_alpha": steps.fairgrad_alpha(),
    "famo": steps.famo(),
    "gradnorm": steps.gradnorm(),
    "gradvac": steps.gradvac(),
    "group_dro": steps.group_dro(0.1),
    "imtl_g": steps.imtl_g(),
    "nash_mtl": steps.nash_mtl(update_every=2),
    "random_weighting": steps.random_weighting(),
    "uncertainty_weighting": steps.uncertainty_weighting(),
    "upgrad": steps.upgrad(),
    "dualproj": steps.dualproj(),
    "positive_sum": steps.positive_sum(),
    "mgda": steps.mgda(),
    "cagrad": steps.cagrad(),
}


def parameters(function):
    return inspect.signature(function).parameters


def test_the_search_finds_the_interface():
    ids = {p.id for p in NAMES}
    assert {
        "fairjax.methods.surgery.pcgrad",
        "fairjax.steps.reduction.combine",
        "fairjax.groups.Partition",
        "fairjax.checkpoint.Checkpoints",
        "fairjax.solvers.projection.project_conflicts",
    } <= ids


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_have_an_example(function):
    assert "Example:" in (function.__doc__ or "")
    assert ">>>" in function.__doc__


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_say_what_they_hold(kind):
    # A class without a docstring of its own gets one that names its fields.
    text = kind.__doc__ or ""
    assert text.split("\n")[0].endswith((".", ".:", ":"))
    assert not text.startswith(f"{kind.__name__}(")


@pytest.mark.parametrize("value", NAMES)
def test_docstring_starts_with_one_line(value):
    first, *rest = (value.__doc__ or "").split("\n")
    assert 10 < len(first) <= 88
    assert not rest or not rest[0].strip()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_modules_say_what_they_are(module):
    assert module.__doc__


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_names_exist_and_are_sorted(module):
    names = getattr(module, "__all__", [])
    assert all(hasattr(module, name) for name in names)
    # Constants, then classes, then functions.
    rank = {True: 0, False: 1}
    key = {name: (rank[name.isupper()], name[0].islower(), name) for name in names}
    assert list(names) == sorted(names, key=key.get)


METHODS = {
    name: value
    for name, value in vars(fairjax).items()
    if is_function(value) and value.__module__.startswith(methods.__name__)
}
WRAPPERS = [fairjax.reconcile, fairjax.per_objective, fairjax.accumulate]
# The steps that a method of another name chains, and those that another follows.
CHAINS = {
    "equal_norms": (steps.balance_magnitudes, steps.combine),
    "fairgrad": (steps.project_conflicts, steps.combine),
    "graddrop": (),
    "gradvac": (steps.gradvac, steps.combine),
    "pcgrad": (steps.project_conflicts, steps.combine),
    "scalarize": (steps.combine,),
}


@pytest.mark.parametrize("make", [*METHODS.values(), *WRAPPERS])
def test_number_of_objectives_is_a_required_keyword(make):
    number = parameters(make)["num_objectives"]
    assert number.kind is inspect.Parameter.KEYWORD_ONLY
    assert number.default is inspect.Parameter.empty


@pytest.mark.parametrize("name", METHODS)
def test_methods_take_the_options_of_their_steps(name):
    """With the same defaults, so that a method is the chain of its steps."""
    options = dict(parameters(METHODS[name]))
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in options.values())
    chain = CHAINS[name] if name in CHAINS else (getattr(steps, name),)
    for step in chain:
        for option, own in parameters(step).items():
            if option == "mode":
                continue
            given = options.pop(option)
            # GroupDRO's step asks for its size; the method has the paper's.
            if own.default is not inspect.Parameter.empty:
                assert given.default == own.default
    if chain:
        own = {"strength", "limit"} if name == "fairgrad" else set()
        assert set(options) == {"num_objectives"} | own


def test_every_step_is_covered():
    public = {
        name
        for name, value in vars(steps).items()
        if is_function(value)
        and value.__module__.startswith(steps.__name__)
        and inspect.signature(value).return_annotation is fairjax.Step
    }
    assert public == set(STEPS)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_steps_keep_the_contract(step):
    assert isinstance(step, fairjax.Step)
    assert list(parameters(step.init)) == ["num_objectives"]
    names = parameters(step.update)
    assert list(names)[:3] == ["coefficients", "gramian", "state"]
    assert any(p.kind is inspect.Parameter.VAR_KEYWORD for p in names.values())
    state = step.init(3)
    rows, after = step.update(
        jnp.eye(3), jnp.eye(3), state, losses=jnp.ones(3), mask=None, unknown=1
    )
    assert rows.shape[1] == 3
    assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (fairjax.value_and_jacobian, ["objective_fn", "*strategy", "*has_aux"]),
        (fairjax.gramian, ["jacobian"]),
        (fairjax.combine, ["weights", "jacobian"]),
        (fairjax.reconcile, ["steps", "*num_objectives"]),
        (fairjax.per_objective, ["transform", "*num_objectives"]),
        (fairjax.partition, ["attributes"]),
        (fairjax.cell_objectives, ["statistics_fn", "partition", "functions"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_signatures_of_the_design(function, names):
    """Leading arguments by position; those with a star by keyword only."""
    found = parameters(function)
    positional = [
        n for n, p in found.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    assert positional == [n for n in names if not n.startswith("*")]
    for name in names:
        if name.startswith("*"):
            assert found[name[1:]].kind is inspect.Parameter.KEYWORD_ONLY
    options = [p for n, p in found.items() if n not in positional]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in options)


@pytest.mark.parametrize(
    "make",
    [
        losses.demographic_parity,
        losses.equalized_odds,
        losses.risk_parity,
        losses.tpr_parity,
    ],
)
def test_gaps_share_their_options(make):
    found = parameters(make)
    assert list(found)[:2] == ["partition", "attribute"]
    shared = parameters(losses.risk_parity)
    for option in ("penalty", "reduction", "temperature"):
        assert found[option].kind is inspect.Parameter.KEYWORD_ONLY
        assert found[option].default == shared[option].default
