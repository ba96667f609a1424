"""Attacks on linear classifiers, of which the distance to the boundary tells who is fooled."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastdens.analysis.adversarial import PGDAccuracy, pgd_accuracy

DUAL = {"l2": 2, "linf": 1}


def linear(weight: np.ndarray, bias: np.ndarray) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], weight.shape[0]))
    with torch.no_grad():
        model[1].weight.copy_(torch.from_numpy(weight))
        model[1].bias.copy_(torch.from_numpy(bias))
    return model


def binary_problem(rng: np.random.Generator, distance: np.ndarray, n_features: int, norm: str, scale: float = 1.0):
    """A linear classifier, examples at the given distances in the norm from its boundary, and their right labels."""
    w, b = rng.normal(size=n_features), rng.normal()
    labels = rng.integers(0, 2, len(distance))
    x = rng.normal(size=(len(distance), n_features))
    margin = np.where(labels == 1, 1, -1) * distance * np.linalg.norm(w, DUAL[norm])
    x += ((margin - (x @ w + b)) / (w @ w))[:, None] * w
    return linear(scale * np.stack([-w, w]), scale * np.array([-b, b])), x, labels


def network(rng: np.random.Generator, n_features: int, n_classes: int) -> nn.Module:
    torch.manual_seed(int(rng.integers(2**31)))
    return nn.Sequential(nn.Linear(n_features, 16), nn.Tanh(), nn.Linear(16, n_classes))


class Spy(nn.Module):
    """Keeps what it was given."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.model(x)


def equal(a: PGDAccuracy, b: PGDAccuracy) -> bool:
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


# Where the model is sure, cross entropy itself has lost its gradient in rounding.
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("n_features", [1, 2, 30])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_linear_is_fooled_within_the_distance_of_its_boundary_and_not_beyond(rng, norm, n_features, scale):
    epsilon = 0.5
    ratio = np.concatenate([rng.uniform(0, 2, 40), [1 - 1e-3, 1 + 1e-3]])
    ratio = ratio[np.abs(ratio - 1) >= 0.99e-3]
    model, x, labels = binary_problem(rng, ratio * epsilon, n_features, norm, scale)
    found = pgd_accuracy(model, x, labels, epsilon, norm=norm, step_size=epsilon)
    assert found.clean.all()
    assert np.array_equal(found.robust, ratio > 1)
    assert found.accuracy == pytest.approx(np.mean(ratio > 1))
    assert found.standard_error == pytest.approx(np.std(ratio > 1) / np.sqrt(len(ratio)))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_defaults_come_close_to_the_boundary(rng, norm):
    ratio = np.concatenate([rng.uniform(0, 0.95, 30), rng.uniform(1.001, 2, 30)])
    model, x, labels = binary_problem(rng, 0.3 * ratio, 10, norm)
    assert np.array_equal(pgd_accuracy(model, x, labels, 0.3, norm=norm).robust, ratio > 1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_multiclass_linear(rng, norm):
    weight, bias, x = rng.normal(size=(4, 6)), rng.normal(size=4), rng.normal(size=(60, 6))
    logits = x @ weight.T + bias
    labels = logits.argmax(1)
    between = np.linalg.norm(weight[labels][:, None] - weight, DUAL[norm], axis=2)
    nearest = np.where(between > 0, logits.max(1)[:, None] - logits, np.inf) / np.where(between > 0, between, 1)
    epsilon = float(np.median(nearest.min(1)))
    found = pgd_accuracy(linear(weight, bias), x, labels, epsilon, norm=norm, n_restarts=2)
    assert found.robust[nearest.min(1) > 1.001 * epsilon].all()
    # The sum over the other classes may lead to another than the nearest.
    assert found.robust[nearest.min(1) < epsilon].mean() < 0.2


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_points_stay_in_the_ball_and_the_bounds(rng, norm):
    x = rng.uniform(size=(20, 3, 4, 4))
    mean, std = (torch.tensor(rng.uniform(0.5, 2, size=(3, 1, 1)), dtype=torch.float32) for _ in range(2))
    standardized = (torch.tensor(x, dtype=torch.float32) - mean) / std
    low, high = -mean / std, (1 - mean) / std
    spy = Spy(linear(rng.normal(size=(3, 48)), np.array([1e3, 0, 0])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pgd_accuracy(spy, standardized, np.zeros(20, int), 0.8, norm=norm, bounds=(low, high), n_restarts=2)
    assert found.robust.all()
    # The number of classes, the clean examples, and 20 steps from each start.
    assert len(spy.seen) == 2 + 2 * 21
    starts = [spy.seen[2], spy.seen[23]]
    assert not torch.equal(*starts)
    seen = torch.stack(spy.seen[2:])
    assert (seen >= low).all() and (seen <= high).all()
    assert (seen == low.expand_as(seen)).any() and (seen == high.expand_as(seen)).any()
    moves = (seen - standardized).flatten(2).double()
    length = moves.norm(dim=2) if norm == "l2" else moves.abs().amax(2)
    assert length.max() <= 0.8 * (1 + 1e-5)
    assert length[1:20].max() > 0.5


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_starts_are_uniform_in_the_ball(rng, norm):
    spy = Spy(linear(np.zeros((2, 3)), np.array([1.0, 0.0])))
    with pytest.warns(UserWarning, match="zero at 2000 of 2000"):
        pgd_accuracy(spy, np.zeros((2000, 3)), np.zeros(2000, int), 2.0, norm=norm, steps=1, batch_size=2000)
    moves = spy.seen[2].double().numpy() / 2
    radius = np.linalg.norm(moves, axis=1) if norm == "l2" else np.abs(moves).max(1)
    for quantile in (0.1, 0.5, 0.9):
        assert abs((radius**3 < quantile).mean() - quantile) < 6 * np.sqrt(0.25 / 2000)
    assert np.abs(moves.mean(0)).max() < 6 * 0.6 / np.sqrt(2000)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_steps_follow_the_gradient_of_cross_entropy(rng, norm):
    model, x = network(rng, 5, 3).double(), torch.from_numpy(rng.normal(size=(50, 5)))
    labels = model(x).argmax(1)
    spy = Spy(model)
    pgd_accuracy(spy, x, labels, 1e-3, norm=norm, steps=1, step_size=1e-6)
    start, after = spy.seen[2:]
    length = torch.linalg.vector_norm(start - x, 2 if norm == "l2" else torch.inf, dim=1)
    held = model(start).argmax(1) == labels
    inside = length < 0.99e-3
    assert (held & inside).sum() > 20
    points = start.clone().requires_grad_()
    nn.functional.cross_entropy(model(points), labels, reduction="sum").backward()
    steepest = nn.functional.normalize(points.grad) if norm == "l2" else points.grad.sign()
    move = (after - start[held]) / 1e-6
    assert torch.allclose(move[inside[held]], steepest[held & inside], atol=1e-6)


def test_no_radius_gives_the_clean_accuracy(rng):
    model, x, labels = network(rng, 5, 3), rng.normal(size=(50, 5)), rng.integers(0, 3, 50)
    found = pgd_accuracy(model, x, labels, 0)
    with torch.no_grad():
        right = model(torch.tensor(x, dtype=torch.float32)).argmax(1).numpy() == labels
    assert np.array_equal(found.clean, right) and np.array_equal(found.robust, right)
    assert found.accuracy == right.mean()


def test_more_attack_fools_more(rng):
    model, x = network(rng, 5, 3), rng.normal(size=(100, 5))
    with torch.no_grad():
        labels = model(torch.tensor(x, dtype=torch.float32)).argmax(1)
    robust = [pgd_accuracy(model, x, labels, epsilon).robust.sum() for epsilon in (0.0, 0.1, 0.3, 3.0)]
    assert robust == sorted(robust, reverse=True) and robust[0] == 100 > robust[-1]
    once, thrice = (pgd_accuracy(model, x, labels, 0.3, steps=1, n_restarts=r).robust for r in (1, 3))
    assert (thrice <= once).all()


def test_batch_size_and_other_examples_do_not_matter(rng):
    model, x, labels = network(rng, 4, 3), rng.normal(size=(23, 4)), rng.integers(0, 3, 23)
    options = {"epsilon": 0.2, "steps": 2, "n_restarts": 2, "random_state": 5}
    whole = pgd_accuracy(model, x, labels, **options)
    assert equal(whole, pgd_accuracy(model, x, labels, **options))
    for batch_size in (1, 7, 22):
        assert equal(whole, pgd_accuracy(model, x, labels, **options, batch_size=batch_size))
    assert np.array_equal(whole.robust[:9], pgd_accuracy(model, x[:9], labels[:9], **options).robust)
    spies = [Spy(model) for _ in range(2)]
    for spy, state in zip(spies, (5, 6), strict=True):
        pgd_accuracy(spy, x, labels, **{**options, "random_state": state})
    assert not torch.equal(spies[0].seen[2], spies[1].seen[2])


def test_model_is_left_as_it_was(rng):
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    model[0].eval()
    model[1].weight.requires_grad_(False)
    model[3].weight.grad = torch.ones_like(model[3].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = [p.requires_grad for p in model.parameters()]
    x, labels = torch.from_numpy(rng.normal(size=(6, 4))), rng.integers(0, 2, 6)
    kept = x.clone()
    found = pgd_accuracy(model, x, labels, 0.1)
    assert [p.requires_grad for p in model.parameters()] == wanted and torch.equal(x, kept)
    assert [m.training for m in model] == [False, True, True, True] and model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model[1].bias.grad is None and (model[3].weight.grad == 1).all()
    for switched_off in (torch.no_grad(), torch.inference_mode()):
        with switched_off:
            assert equal(found, pgd_accuracy(model, x * 1, labels, 0.1))
            assert torch.is_grad_enabled() is False


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_precision(rng, dtype):
    ratio = np.array([0.5, 0.8, 1.2, 2.0])
    model, x, labels = binary_problem(rng, ratio, 4, "l2")
    found = pgd_accuracy(model.to(dtype), x, labels, 1.0)
    assert found.robust.tolist() == [False, False, True, True]


def test_a_model_without_gradient_is_refused_and_a_zero_gradient_told(rng):
    class Function(nn.Module):
        def __init__(self, function, model):
            super().__init__()
            self.function, self.model = function, model

        def forward(self, x: Tensor) -> Tensor:
            return self.function(self.model, x)

    model, x, labels = binary_problem(rng, np.ones(5), 3, "l2")
    for function in (
        lambda m, x: m(x).detach(),
        lambda m, x: m(x.detach()),
        lambda m, x: nn.functional.one_hot(m(x).argmax(1), 2).float(),
    ):
        with pytest.raises(ValueError, match="no gradient in its input"):
            pgd_accuracy(Function(function, model), x, labels, 0.1)
    with pytest.warns(UserWarning, match="zero at 5 of 5 examples"):
        assert pgd_accuracy(Function(lambda m, x: m(x).sign(), model), x, labels, 0.1).robust.all()
    with pytest.raises(ValueError, match="gradient of the model is NaN or infinite near example 0"):
        pgd_accuracy(Function(lambda m, x: m(x) + (x[:, :2] * 0).abs().sqrt(), model), x, labels, 0.1)
    with pytest.raises(ValueError, match="gives NaN at or near example 0"):
        pgd_accuracy(Function(lambda m, x: m(x) * torch.nan, model), x, labels, 0.1)
    with pytest.raises(ValueError, match=r"shape \[1\] for 1 inputs"):
        pgd_accuracy(Function(lambda m, x: m(x)[:, 0], model), x, labels, 0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l_inf"}, "no norm 'l_inf': the nearest names are 'linf'"),
        ({"norm": "L2"}, "no norm 'L2': the nearest names are 'l2'"),
        ({"epsilon": -1}, "epsilon is -1"),
        ({"epsilon": np.inf}, "epsilon is infinite"),
        ({"steps": 0}, "steps is 0"),
        ({"step_size": -1.0}, "step_size is -1.0"),
        ({"step_size": 0}, "step_size is 0"),
        ({"n_restarts": 0}, "n_restarts is 0"),
        ({"bounds": (1, 0)}, "not under its high"),
        ({"bounds": (np.zeros(4), np.ones(4))}, r"shape \[2\]"),
        ({"bounds": 1.0}, r"pair \(low, high\)"),
        ({"bounds": (-9.0, 0.5)}, "example 2 of x, from 0 to 1, is out of the bounds"),
        ({"bounds": (0.5, np.inf)}, "example 0 of x, from 0 to 0, is out of the bounds"),
    ],
)
def test_bad_parameters(rng, options, message):
    x = np.array([[0.0, 0.0], [0.1, 0.2], [0.0, 1.0]])
    with pytest.raises(ValueError, match=message):
        pgd_accuracy(network(rng, 2, 2), x, **{"labels": [0, 1, 0], "epsilon": 0.1, **options})


def test_rounding_beyond_the_bounds_is_forgiven(rng):
    model, x, labels = binary_problem(rng, np.ones(4), 3, "l2")
    x[0, 0], low, high = x.max() + 1, x.min(), x.max() + 1
    assert pgd_accuracy(model, x * (1 + 1e-7), labels, 0.0, bounds=(float(low), float(high))).accuracy >= 0.75
