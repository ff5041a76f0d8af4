"""The conventions of the public interface: docstrings, signatures, contracts.

A rule is one test, which lists all that break it.
"""

import functools
import inspect
import pickle
import re
import sys

import jax
import jax.numpy as jnp
import pytest

import fairjax
from fairjax import losses, methods, solvers, steps
from tests import examples, public
from tests.conformance import CASES, DEPRECATED

# Old names under which functions warn.
OLD = {*DEPRECATED, *(f"{name}_step" for name in DEPRECATED)}
OLD |= {f"solve_{name}" for name in DEPRECATED}
OLD |= {"suppress_small_cells", "suppress_small_counts"}


def is_function(value):
    return inspect.isfunction(inspect.unwrap(value)) and not inspect.isclass(value)


# Every public function and class, by the place where it is defined, which is private
# for what a package exports.
NAMES = {
    f"{value.__module__}.{name}": value
    for module in public.MODULES
    for name, value in vars(module).items()
    if not name.startswith("_")
    and callable(value)
    and (
        getattr(value, "__module__", None) == module.__name__
        or (
            public.is_ours(value)
            and name in getattr(module, "__all__", ())
            and "._" in value.__module__
        )
    )
}
FUNCTIONS = {name: value for name, value in NAMES.items() if is_function(value)}
# The names under which modules export each of them.
EXPORTED = {
    name: {
        exported
        for module in public.MODULES
        for exported, other in vars(module).items()
        if other is value
    }
    for name, value in FUNCTIONS.items()
}
CLASSES = {name: value for name, value in NAMES.items() if inspect.isclass(value)}
STEPS = {
    "project_conflicts": steps.project_conflicts(),
    "balance_magnitudes": steps.balance_magnitudes(),
    "combine": steps.combine(),
    "aligned_mtl": steps.aligned_mtl(),
    "by_level": steps.by_level([[0, 1], [2]], steps.combine()),
    "conflict_free": steps.conflict_free(),
    "cr_mogm": steps.cr_mogm(),
    "dwa": steps.dwa(),
    "fairgrad_alpha": steps.fairgrad_alpha(),
    "famo": steps.famo(),
    "geometric_mean": steps.geometric_mean(),
    "gradnorm": steps.gradnorm(),
    "gradvac": steps.gradvac(),
    "group_dro": steps.group_dro(0.1),
    "imtl_g": steps.imtl_g(),
    "imtl_l": steps.imtl_l(),
    "nash_mtl": steps.nash_mtl(update_every=2),
    "pcd": steps.pcd(),
    "random_weighting": steps.random_weighting(),
    "stch": steps.stch(),
    "uncertainty_weighting": steps.uncertainty_weighting(),
    "upgrad": steps.upgrad(),
    "dualproj": steps.dualproj(),
    "positive_sum": steps.positive_sum(),
    "mgda": steps.mgda(),
    "cagrad": steps.cagrad(),
    "modo": steps.modo(),
    "sdmgrad": steps.sdmgrad(),
}


def parameters(function):
    return inspect.signature(function).parameters


def test_the_interface_is_the_snapshot():
    """``python tests/public.py`` writes it anew where a change is meant."""
    stored = public.SNAPSHOT.read_text(encoding="utf-8").splitlines()
    found = public.lines()
    assert sorted(set(found) - set(stored)) == []
    assert sorted(set(stored) - set(found)) == []
    assert found == stored


def test_the_search_finds_the_interface():
    assert {
        "fairjax.reconcilers.cones.upgrad",
        "fairjax.reconcilers.cones.upgrad_step",
        "fairjax.reconcilers.projection.pcgrad",
        "fairjax.reconcilers.projection.solve_project_conflicts",
        "fairjax.reconcilers.weights.combine",
        "fairjax.groups.Partition",
        "fairjax.checkpoint.Checkpoints",
    } <= NAMES.keys()


# What examples cannot show in a few lines, and the tests that assert it.
TESTED = {
    "fairjax.audit.document.audit": "audit/test_audit.py",
    "fairjax.audit.output.write": "audit/test_output.py",
    "fairjax.audit.reading.data.AuditData.varying": "audit/test_suppression.py",
    "fairjax.data.prefetch.Prefetched.close": "data/test_prefetch.py",
    "fairjax.evaluation.methods.MethodComparison.figure": "evaluation/test_methods.py",
    "fairjax.mitigation.disparate_impact.DisparateImpactRemover.report": (
        "mitigation/test_disparate_impact.py"
    ),
    "fairjax.mitigation.exponentiated_gradient.ExponentiatedGradient.save": (
        "mitigation/test_exponentiated_gradient.py"
    ),
    "fairjax.mitigation.exponentiated_gradient.ExponentiatedGradient.load": (
        "mitigation/test_exponentiated_gradient.py"
    ),
    "fairjax.mitigation.flax_responses.FlaxResponses.mixture": (
        "mitigation/test_exponentiated_gradient.py"
    ),
    "fairjax.mitigation.scoring.RoutedScorer.get_metadata_routing": (
        "mitigation/test_disparate_impact.py"
    ),
    "fairjax.models.transformer.Transformer.summarize": "models/test_transformer.py",
}


def methods_of(kind):
    """Name -> public method that a class defines."""
    found = {
        name: getattr(value, "__func__", value)
        for name, value in vars(kind).items()
        if not name.startswith("_") and not isinstance(value, property)
    }
    return {
        name: value
        for name, value in found.items()
        if inspect.isroutine(value) and public.is_ours(value)
    }


def test_functions_have_an_example_that_asserts_a_value():
    """In their docstring; a method in that of its class or its own."""
    lacking = {
        name
        for name, value in FUNCTIONS.items()
        if not EXPORTED[name] & OLD
        and not examples.shows(value.__doc__ or "", EXPORTED[name])
    }
    for kind, holder in CLASSES.items():
        for name, method in methods_of(holder).items():
            texts = (method.__doc__ or "", holder.__doc__ or "")
            if not any(examples.shows(text, {name}) for text in texts):
                lacking.add(f"{kind}.{name}")
    assert sorted(lacking ^ TESTED.keys()) == []


def test_files_assert_what_examples_cannot_show():
    def calls(name, file):
        text = (public.SNAPSHOT.parent / file).read_text(encoding="utf-8")
        return re.search(rf"\b{name.rpartition('.')[2]}\(", text)

    assert [name for name, file in TESTED.items() if not calls(name, file)] == []


@pytest.mark.parametrize(
    "example",
    [
        "f(3)",
        "f(3).shape == (3,)\nTrue",
        "print(f(3).shape)\n(3,)",
        "f(3).dtype\ndtype('int32')",
        "len(f(3))\n3",
        "[len(row) for row in f(3)]\n[3]",
        "jax.tree.map(jnp.shape, f(3))\n(3,)",
        "x = f(3)\n>>> x.ndim, type(x)\n(1, <class 'int'>)",
        "f\n<function f at ...>",
        "jax.jit(f)\n<function f at ...>",
        "dict(f=1)\n{'f': 1}",
        "x = f(3)  # f\n>>> 1 + 1\n2",
        "x = 1\n>>> y = f(x)\n>>> x\n1",
        "f(3)\n()",
        "f(-1)\nTraceback (most recent call last):\n  ...\nValueError: -1",
    ],
)
def test_examples_without_a_value(example):
    assert not examples.shows(f">>> {example}", {"f"})


@pytest.mark.parametrize(
    "example",
    [
        "f(3)\n3",
        "module.f(x.shape)\n3",
        "x = f(3)\n>>> print(x.shape, x.sum())\n(3,) 3",
        "a, b = f(3)\n>>> y = b\n>>> y.tolist()\n[3]",
        "jax.jit(f)(3)\n3",
        "fast = jax.jit(f)\n>>> fast(3)\n3",
        "def g(x):\n...     return f(x) + 1\n>>> jax.grad(g)(1.0)\n3.0",
        "for x in f(3):\n...     print(x.a)\n3",
        "[x.a for x in f(3)]\n[3]",
        "f(folder)\n>>> os.listdir(folder)\n['a']",
        "model.f(3)\n>>> model.weights\n3",
        # A check shows what it lets pass, and what it does not.
        "f(1)\n>>> f(-1)\nTraceback (most recent call last):\n  ...\nValueError: -1",
    ],
)
def test_examples_with_a_value(example):
    assert examples.shows(f">>> {example}", {"f"})


def test_no_function_hides_the_module_of_its_name():
    """Which could then no longer be imported as an attribute of its package."""

    def is_hidden(name):
        package, _, last = name.rpartition(".")
        return not inspect.ismodule(getattr(sys.modules[package], last))

    assert [m.__name__ for m in public.MODULES[1:] if is_hidden(m.__name__)] == []


def test_classes_say_what_they_hold():
    def says(kind):
        # A class without a docstring of its own gets one that names its fields.
        text = kind.__doc__ or ""
        first = text.split("\n")[0]
        return first.endswith((".", ".:", ":")) and not text.startswith(
            f"{kind.__name__}("
        )

    assert [name for name, value in CLASSES.items() if not says(value)] == []


def test_docstrings_start_with_one_line():
    def starts(value):
        first, *rest = (value.__doc__ or "").split("\n")
        return 10 < len(first) <= 88 and not (rest and rest[0].strip())

    assert [name for name, value in NAMES.items() if not starts(value)] == []


def test_modules_say_what_they_are():
    assert [m.__name__ for m in public.MODULES if not m.__doc__] == []


def test_all_names_exist_and_are_sorted():
    # Constants, then classes, then functions.
    def rank(name):
        return not name.isupper(), name[0].islower(), name

    for module in public.MODULES:
        names = list(getattr(module, "__all__", []))
        if module is fairjax:
            # All methods are exported once more, after what is its own.
            methods_again = names[-len(methods.__all__) :]
            assert methods_again == methods.__all__
            names = names[: -len(methods_again)]
        assert [name for name in names if not hasattr(module, name)] == []
        assert (module, names) == (module, sorted(names, key=rank))


METHODS = {
    name: getattr(methods, name)
    for name in methods.__all__
    if is_function(getattr(methods, name))
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


def test_number_of_objectives_is_a_required_keyword():
    for make in [*METHODS.values(), *WRAPPERS]:
        number = parameters(make)["num_objectives"]
        assert (make, number.kind) == (make, inspect.Parameter.KEYWORD_ONLY)
        assert (make, number.default) == (make, inspect.Parameter.empty)


def test_settings_may_be_arrays_that_jit_closes_over():
    """A comparison of such an array under jit would be traced."""

    def make(case):
        name, value, _ = case.setting
        case.make(num_objectives=3, **{name: jnp.array(value)})
        return 0.0

    for case in CASES.values():
        if case.setting:
            jax.eval_shape(functools.partial(make, case))


def test_methods_take_the_options_of_their_steps():
    """With the same defaults, so that a method is the chain of its steps."""
    for name, method in METHODS.items():
        options = dict(parameters(method))
        kinds = {option.kind for option in options.values()}
        assert (name, kinds) == (name, {inspect.Parameter.KEYWORD_ONLY})
        chain = CHAINS[name] if name in CHAINS else (getattr(steps, name),)
        for step in chain:
            for option, own in parameters(step).items():
                if option == "mode":
                    continue
                given = options.pop(option)
                # GroupDRO's step asks for its size; the method has the paper's.
                if own.default is not inspect.Parameter.empty:
                    assert (name, option, given.default) == (name, option, own.default)
        if chain:
            own = {"strength", "limit"} if name == "fairgrad" else set()
            assert (name, set(options)) == (name, {"num_objectives"} | own)


def test_derived_methods_document_their_options():
    """In the words of their steps, before what they return."""
    derived = {name: METHODS[name] for name in set(METHODS) - set(CHAINS) - OLD}
    assert len(derived) == 22
    for name, method in derived.items():
        text = inspect.getdoc(method)
        described = text.partition("\nArgs:\n")[2].partition("\n\n")[0]
        entries = [
            line.partition(":")[0].strip()
            for line in described.split("\n")
            if line[:2] == "  " and line[2] != " "
        ]
        assert (name, entries) == (name, list(parameters(method)))
        assert "Returns:\n  A transformation of ``[K, *param]``" in text
        assert f"fairjax.{name}(num_objectives=" in text
        assert pickle.loads(pickle.dumps(method)) is method


def test_old_names_warn_and_do_as_the_new_ones():
    gram = jnp.array([[1.0, -1.0], [-1.0, 4.0]])
    for old, new in DEPRECATED.items():
        for room in (fairjax, steps, solvers):
            function = getattr(room, old)
            assert inspect.signature(function) == inspect.signature(getattr(room, new))
        with pytest.warns(DeprecationWarning, match=f"{old} is now called {new}"):
            found = getattr(solvers, old)(gram)
        assert (found == getattr(solvers, new)(gram)).all()
        with pytest.warns(DeprecationWarning, match=f"{old} is now called {new}"):
            step = getattr(steps, old)()
        weights, _ = step.update(jnp.eye(2), gram, step.init(2))
        assert (weights == found).all()
        with pytest.warns(DeprecationWarning, match=f"{old} is now called {new}"):
            transform = getattr(fairjax, old)(num_objectives=2)
        rows = jnp.array([[1.0, 0.0], [-1.0, 3**0.5]])
        update, _ = transform.update(rows, transform.init(rows[0]))
        other = getattr(fairjax, new)(num_objectives=2)
        assert (update == other.update(rows, other.init(rows[0]))[0]).all()


def test_every_step_is_covered():
    public = {
        name
        for name, value in vars(steps).items()
        if is_function(value)
        and inspect.signature(value).return_annotation is fairjax.Step
    }
    assert public - OLD == set(STEPS)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_steps_keep_the_contract(step):
    assert isinstance(step, fairjax.Step)
    assert list(parameters(step.init)) == ["num_objectives"]
    names = parameters(step.update)
    assert list(names)[:3] == ["coefficients", "gramian", "state"]
    assert any(p.kind is inspect.Parameter.VAR_KEYWORD for p in names.values())
    state = step.init(3)
    given = jnp.ones((1, 3)) if step is STEPS["cr_mogm"] else jnp.eye(3)
    # Traced, not compiled: shapes and structure are the contract.
    rows, after = jax.eval_shape(
        lambda state: step.update(
            given, jnp.eye(3), state, losses=jnp.ones(3), mask=None, unknown=1
        ),
        state,
    )
    assert rows.shape[1] == 3
    assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (fairjax.value_and_jacobian, ["objective_fn", "*strategy", "*has_aux"]),
        (fairjax.gramian, ["jacobian", "other"]),
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
