"""Why two terms of MultiFair's released code reach no parameter, in PyTorch itself.

A model of the same build: encoders, and a head called ``classifier`` that is a sequence
of layers. What is read in the released code is the name that it looks for, and that
the gap is a Python number when it is added to the loss; what follows is shown here.
"""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.oracle

ROWS, WIDTH, CLASSES = 40, 4, 2
NAME = "classifier.weight"


def sequence():
    return torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH),
        torch.nn.LayerNorm(WIDTH),
        torch.nn.GELU(),
        torch.nn.Dropout(0.0),
        torch.nn.Linear(WIDTH, CLASSES),
    )


def single_layer():
    return torch.nn.Linear(WIDTH, CLASSES)


class Fused(torch.nn.Module):
    """Two encoders, and a head over the mean of what they give."""

    def __init__(self, head):
        super().__init__()
        self.image = torch.nn.Linear(3, WIDTH)
        self.notes = torch.nn.Linear(5, WIDTH)
        self.classifier = head

    def forward(self, batch):
        return self.classifier((self.image(batch[0]) + self.notes(batch[1])) / 2)


def made(head):
    """A model with that head, a batch, labels and groups."""
    torch.manual_seed(0)
    model = Fused(head())
    labels = torch.arange(ROWS) % 2
    groups = torch.arange(ROWS) // 2 % 2
    batch = [torch.randn(ROWS, width) + labels[:, None] for width in (3, 5)]
    return model, batch, labels, groups


def named(model):
    """Parameters that a search for the name finds."""
    return {name: p for name, p in model.named_parameters() if NAME in name}


def direction(model, loss, others):
    """The direction term of the layer that is found by name; 0 without one."""
    layers = list(named(model).values())
    if not layers:
        return torch.tensor(0.0)
    (gradient,) = torch.autograd.grad(loss, layers[:1], create_graph=True)
    cosines = [
        torch.nn.functional.cosine_similarity(gradient.flatten(), other.flatten(), 0)
        for other in others
    ]
    return sum(0.5 - 0.5 * cosine for cosine in cosines) / 2


@pytest.mark.parametrize(("head", "found"), [(sequence, 0), (single_layer, 1)])
def test_a_sequence_has_no_parameter_of_the_name_that_is_looked_for(head, found):
    """So the direction term is 0 whatever the gradients; with one layer it is not."""
    model, batch, labels, _ = made(head)
    names = [name for name, _ in model.named_parameters() if "classifier" in name]
    if head is sequence:
        layers = ("classifier.0", "classifier.1", "classifier.4")
        assert names == [f"{n}.{kind}" for n in layers for kind in ("weight", "bias")]
    assert len(named(model)) == found
    loss = torch.nn.functional.cross_entropy(model(batch), labels)
    others = [torch.randn(CLASSES, WIDTH) for _ in range(2)]
    term = direction(model, loss, others)
    assert (float(term.detach()) != 0) == (found == 1)
    # Nor is there anything in it to be differentiated.
    assert term.requires_grad == (found == 1)


def fairness_gap(probabilities, labels, groups):
    """Of the groups' smooth AUCs; differentiable."""
    aucs = []
    for group in (0, 1):
        positive = probabilities[(groups == group) & (labels == 1)]
        negative = probabilities[(groups == group) & (labels == 0)]
        pairs = negative[None, :] - positive[:, None]
        aucs.append(1 - torch.nn.functional.softplus(pairs).mean())
    found = torch.stack(aucs)
    return (found - found.mean()).abs().mean()


def gradients(model, batch, labels, groups, add):
    """``.grad`` of every parameter, of the loss and what is added to it."""
    model = copy.deepcopy(model)
    logits = model(batch)
    gap = fairness_gap(torch.softmax(logits, dim=1)[:, 1], labels, groups)
    (torch.nn.functional.cross_entropy(logits, labels) + add(gap)).backward()
    return gap, {name: p.grad.numpy() for name, p in model.named_parameters()}


def test_a_term_that_is_a_python_number_leaves_every_gradient_as_it_is():
    """Bit for bit; the same term as a tensor moves encoders and head."""
    problem = made(sequence)
    gap, plain = gradients(*problem, lambda _: 0.0)
    assert gap.requires_grad
    assert gap.item() > 1e-3
    _, number = gradients(*problem, lambda gap: 0.5 * gap.item())
    _, tensor = gradients(*problem, lambda gap: 0.5 * gap)
    for name, wanted in plain.items():
        np.testing.assert_array_equal(number[name], wanted, err_msg=name)
        if name.endswith("weight"):
            assert not np.allclose(tensor[name], wanted, rtol=1e-3, atol=0), name
