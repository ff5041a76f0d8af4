"""Soft statistics and gaps against fairret 0.1.

fairret divides a group's deviation by the overall statistic, and adds up over groups;
our gaps are the deviations themselves, reduced by a mean. So with :math:`c` the overall
statistic and :math:`G` groups, an absolute gap is :math:`c/G` times its 1-norm, a
squared one :math:`(c^2/G)` times its squared 2-norm, and a smooth maximum of
temperature :math:`c` is :math:`c` times its log-sum-exp. The gradient of the last is
another: our temperature is a constant, and theirs follows the overall statistic.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fairjax
from fairjax import losses

torch = pytest.importorskip("torch")
loss = pytest.importorskip("fairret.loss")
statistic = pytest.importorskip("fairret.statistic")

pytestmark = pytest.mark.oracle

SITES = ("a", "b", "c")


def objectives(functions, partition):
    def statistics(logits, batch):
        return {"score": jax.nn.sigmoid(logits)}

    return fairjax.cell_objectives(statistics, partition, functions)


def case(seed, size=60):
    rng = np.random.default_rng(seed)
    groups, labels = rng.integers(0, 3, size), rng.integers(0, 2, size)
    return rng.normal(0, 2, size).astype(np.float32), labels, groups


def cells_of(labels, groups, sites=SITES):
    columns = {"died": labels, "site": np.array(sites)[groups]}
    partition = fairjax.partition(columns)
    return partition, {"cells": jnp.asarray(partition.encode(columns))}


def theirs(logits, labels, groups, count=3):
    """Tensors as fairret takes them: predictions, one-hot groups, labels."""
    return (
        torch.sigmoid(torch.tensor(logits, dtype=torch.float64))[:, None],
        torch.eye(count, dtype=torch.float64)[torch.as_tensor(groups)],
        torch.tensor(labels, dtype=torch.float64)[:, None],
    )


def soft_rates(logits, labels, groups, label, sites=SITES):
    partition, batch = cells_of(labels, groups, sites)
    functions = {
        site: losses.group_risk(
            partition, ("died", "site"), (label, site), statistic="score"
        )
        for site in sites
    }
    compute = fairjax.value_and_jacobian(objectives(functions, partition))
    return compute(jnp.asarray(logits, jnp.float32), batch)[0]


@pytest.mark.parametrize(("seed", "label"), [(0, 0), (1, 1)])
def test_soft_rates(seed, label):
    logits, labels, groups = case(seed)
    rate = statistic.TruePositiveRate() if label else statistic.FalsePositiveRate()
    expected = rate(*theirs(logits, labels, groups))
    found = soft_rates(logits, labels, groups, label)
    np.testing.assert_allclose(found, expected.numpy().ravel(), rtol=1e-5)


def test_soft_rates_by_hand():
    scores, labels = np.array([0.2, 0.6, 0.9, 0.8]), np.array([0, 1, 0, 1])
    groups, logits = np.array([0, 0, 1, 1]), np.log(scores / (1 - scores))
    for label, values in ((1, [0.6, 0.8]), (0, [0.2, 0.9])):
        found = soft_rates(logits, labels, groups, label, sites=("a", "b"))
        np.testing.assert_allclose(found, values, rtol=1e-5)
        rate = statistic.TruePositiveRate() if label else statistic.FalsePositiveRate()
        expected = rate(*theirs(logits, labels, groups, count=2))
        np.testing.assert_allclose(expected.numpy().ravel(), values, rtol=1e-6)


def scaled(kind, rate, given):
    """fairret's loss in our units, with its gradient."""
    overall = rate.overall_statistic(given[0], *given[2:]).squeeze()
    arguments = {"pred_as_logit": False}
    if kind == "absolute":
        return overall / 3 * loss.NormLoss(rate, p=1)(*given, **arguments)
    if kind == "squared":
        return overall**2 / 3 * loss.NormLoss(rate, p=2)(*given, **arguments) ** 2
    return overall.detach() * loss.LSELoss(rate)(*given, **arguments)


@pytest.mark.parametrize("name", ["demographic_parity", "tpr_parity"])
@pytest.mark.parametrize("kind", ["absolute", "squared", "smooth_max"])
def test_gaps_and_their_gradients(name, kind):
    logits, labels, groups = case(3)
    rate = {
        "demographic_parity": statistic.PositiveRate(),
        "tpr_parity": statistic.TruePositiveRate(),
    }[name]
    tensor = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    _, one_hot, truth = theirs(logits, labels, groups)
    given = [torch.sigmoid(tensor)[:, None], one_hot]
    given += [truth] if name == "tpr_parity" else []
    expected = scaled(kind, rate, given)
    expected.backward()

    partition, batch = cells_of(labels, groups)
    overall = rate.overall_statistic(given[0].detach(), *given[2:]).item()
    options = {"penalty": "squared"} if kind == "squared" else {}
    if kind == "smooth_max":
        options = {"reduction": "smooth_max", "temperature": overall}
    if name == "tpr_parity":
        options["label"] = "died"
    function = getattr(losses, name)(partition, "site", **options)
    compute = fairjax.value_and_jacobian(objectives({"gap": function}, partition))
    values, jacobian = compute(jnp.asarray(logits), batch)
    np.testing.assert_allclose(values[0], expected.item(), rtol=1e-4)
    if kind != "smooth_max":
        np.testing.assert_allclose(jacobian[0], tensor.grad.numpy(), atol=1e-6)
