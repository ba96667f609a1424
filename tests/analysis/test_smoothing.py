"""Certificates against the closed form of a linear classifier, scipy's intervals, and calls cut short."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, kstest, norm
from torch import Tensor, nn

from fastdens.analysis import smoothing
from fastdens.analysis.smoothing import Certificates, certify


def linear(weight: np.ndarray, bias: np.ndarray, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(weight))
        model.bias.copy_(torch.from_numpy(bias))
    return model


def binary_problem(rng: np.random.Generator, n_examples: int, n_features: int, distance: np.ndarray | float):
    """A classifier by the sign of w.x + b, and examples at the given signed distances from its boundary."""
    w, b = rng.normal(size=n_features), rng.normal()
    x = rng.normal(size=(n_examples, n_features))
    x += ((distance - (x @ w + b) / np.linalg.norm(w))[:, None] * w) / np.linalg.norm(w)
    return linear(np.stack([-w / 2, w / 2]), np.array([-b / 2, b / 2])), x.astype(np.float32)


class Spy(nn.Module):
    """Counts its calls and inputs, and fails at a call if told to."""

    def __init__(self, model: nn.Module, fail_at: int | None = None, error: type[BaseException] = KeyboardInterrupt):
        super().__init__()
        self.model, self.fail_at, self.error = model, fail_at, error
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(self.sizes) == self.fail_at:
            raise self.error
        return self.model(x)


def equal(a: Certificates, b: Certificates) -> bool:
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def quick(model: nn.Module, x: object, sigma: float = 0.5, **options: object) -> Certificates:
    return certify(model, x, sigma, **{"n": 200, "progress": False, **options})


@pytest.mark.parametrize("n_features", [1, 5, 20])
def test_linear_radius_is_exceeded_with_probability_alpha_at_most(rng, n_features):
    sigma, alpha, n_examples = 0.7, 0.1, 400
    distance = rng.uniform(-1.5, 1.5, n_examples) * sigma
    model, x = binary_problem(rng, n_examples, n_features, distance)
    found = quick(model, x, sigma, n0=30, n=300, alpha=alpha, random_state=int(rng.integers(2**31)))
    kept = found.predicted >= 0
    assert 0.5 < kept.mean() < 1
    # A wrong class is as much an error as too large a radius: it has a probability below one half.
    wrong = kept & ((found.predicted != (distance > 0)) | (found.radius > np.abs(distance)))
    # Counts are integers: the error of an exact interval stays under alpha. One test in 10^6 fails by chance.
    assert binom.sf(wrong.sum() - 1, n_examples, alpha) > 1e-6
    assert wrong.sum() > 0


def test_counts_are_binomial(rng):
    distance = rng.choice([-1, 1], 500) * rng.uniform(0.3, 1.5, 500)
    model, x = binary_problem(rng, 500, 3, distance)
    count = quick(model, x, 1.0, n0=1000, n=100, random_state=int(rng.integers(2**31))).n_selected
    share = norm.cdf(np.abs(distance))
    # The distribution function of a discrete variable, spread evenly over its steps, is uniform.
    spread = binom.cdf(count - 1, 100, share) + rng.uniform(size=500) * binom.pmf(count, 100, share)
    assert kstest(spread, "uniform").pvalue > 1e-6


def test_radius_approaches_the_distance_as_draws_grow(rng):
    distance = rng.uniform(0.2, 1.0, 4)
    model, x = binary_problem(rng, 4, 3, distance)
    few, many = (quick(model, x, 0.5, n=n, random_state=int(rng.integers(2**31))) for n in (300, 100_000))
    assert (np.abs(many.radius - distance) < 0.04).all() and (many.radius < distance + 0.005).all()
    assert few.radius.mean() < many.radius.mean()
    assert many.predicted.tolist() == [1] * 4 and many.predicted.dtype == np.int64


def test_lower_bound_is_that_of_scipy(rng):
    distance = np.concatenate([rng.uniform(-1, 1, 20), [0, 9, -9]])
    model, x = binary_problem(rng, len(distance), 2, distance)
    found = quick(model, x, n=50, n0=1, alpha=0.01)
    assert found.n == 50 and found.n_selected[-2:].tolist() == [50, 50]
    for count, low, radius, predicted in zip(
        found.n_selected, found.lower_bound, found.radius, found.predicted, strict=True
    ):
        interval = binomtest(int(count), 50, alternative="greater").proportion_ci(0.99, method="exact")
        assert low == pytest.approx(interval.low, rel=1e-10)
        assert radius == pytest.approx(0.5 * norm.ppf(low) if low > 0.5 else 0, rel=1e-10)
        assert (predicted >= 0) == (low > 0.5)


def test_a_count_of_zero_has_a_bound_of_zero():
    class Alternating(nn.Module):
        """Class 0 in the first 10 inputs it is asked for, class 1 after."""

        n_seen = -1  # The first input shows the number of classes.

        def forward(self, x: Tensor) -> Tensor:
            number = torch.arange(len(x)) + self.n_seen
            self.n_seen += len(x)
            return nn.functional.one_hot((number >= 10).long(), 3).float()

    found = quick(Alternating(), np.zeros((1, 2)), n0=10, n=90, batch_size=17)
    assert found.n_selected.tolist() == [0] and found.lower_bound.tolist() == [0.0]
    assert found.predicted.tolist() == [-1] and found.radius.tolist() == [0.0]


def test_on_the_boundary_it_abstains(rng):
    model, x = binary_problem(rng, 300, 4, 0.0)
    found = quick(model, x, alpha=0.01, random_state=int(rng.integers(2**31)))
    assert binom.sf((found.predicted >= 0).sum() - 1, 300, 0.01) > 1e-6
    assert (found.radius[found.predicted == -1] == 0).all()


def test_multiclass_radius_is_below_the_nearest_boundary(rng):
    weight, bias, x = rng.normal(size=(5, 4)), rng.normal(size=5), rng.normal(size=(200, 4)).astype(np.float32)
    logits = x @ weight.T + bias
    top = logits.argmax(1)
    margin = logits.max(1)[:, None] - logits
    between = np.linalg.norm(weight[top][:, None] - weight[None], axis=2)
    nearest = np.where(between > 0, margin / np.where(between > 0, between, 1), np.inf).min(1)
    found = quick(linear(weight, bias), x, 0.3, n=1000, random_state=int(rng.integers(2**31)))
    # Where the boundary is not nearer than the noise reaches, smoothing changes no class.
    sure = (found.predicted >= 0) & (nearest > 0.3)
    assert sure.sum() > 20
    wrong = sure & ((found.predicted != top) | (found.radius > nearest))
    assert binom.sf(wrong.sum() - 1, sure.sum(), 0.001) > 1e-6


def test_noise_is_standard_normal_and_of_the_units_of_x(rng):
    seen = []

    class Recorder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.clone())
            return x.flatten(1)[:, :2]

    x = rng.normal(size=(2, 3, 4)) * 10
    quick(Recorder(), x, 0.25, n0=100, n=4900, batch_size=1000)
    noise = (torch.cat(seen[1:]).double().numpy() - np.repeat(x, 5000, 0)).reshape(2, 5000, 12) / 0.25
    assert np.abs(noise.mean(1)).max() < 6 / np.sqrt(5000)
    assert np.abs(noise.var(1) - 1).max() < 6 * np.sqrt(2 / 5000)
    together = np.corrcoef(np.concatenate([noise[0], noise[1]], 1).T) - np.eye(24)
    assert np.abs(together).max() < 6 / np.sqrt(5000)
    assert len(np.unique(noise[..., 0])) > 9900


@pytest.mark.parametrize("block", [1, 100, 1 << 22])
def test_batch_size_and_other_examples_do_not_matter(rng, monkeypatch, block):
    monkeypatch.setattr(smoothing, "_NUMBERS_AT_ONCE", block)
    model, x = binary_problem(rng, 7, 3, rng.uniform(-0.5, 0.5, 7))
    whole = quick(model, x, n0=10, random_state=3)
    for batch_size in (1, 13, 209, 210, 211, 430, 10_000):
        assert equal(whole, quick(model, x, n0=10, random_state=3, batch_size=batch_size))
    x[3:] = 0
    others = quick(model, x, n0=10, random_state=3)
    assert np.array_equal(whole.n_selected[:3], others.n_selected[:3])
    assert not np.array_equal(whole.n_selected, quick(model, x, n0=10, random_state=4).n_selected)


def test_passes_are_of_bounded_size_and_shared_by_examples_of_few_draws(rng):
    model, x = binary_problem(rng, 5, 3, rng.normal(size=5))
    spy = Spy(model)
    quick(spy, x, n0=10, n=90, batch_size=250)
    assert spy.sizes[1:] == [200, 200, 100]
    spy = Spy(model)
    quick(spy, x[:2], n0=10, n=90, batch_size=40)
    assert spy.sizes[1:] == [40, 40, 20] * 2


@pytest.mark.parametrize("batch_size", [60, 300])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_and_resumed_is_uninterrupted(rng, tmp_path, batch_size, error):
    model, x = binary_problem(rng, 6, 3, rng.uniform(-0.5, 0.5, 6))
    file = tmp_path / "new" / "certificates"
    options = {"n0": 10, "n": 110, "batch_size": batch_size, "labels": rng.integers(0, 2, 6)}
    spy = Spy(model)
    whole = quick(spy, x, **options)
    n_calls = len(spy.sizes)
    cut_short = Spy(model, fail_at=n_calls - 1, error=error)
    with pytest.raises(error):
        quick(cut_short, x, checkpoint=file, **options)
    rest = Spy(model)
    assert equal(whole, quick(rest, x, checkpoint=file, **options))
    # Two passes an example of 120 draws, or two examples a pass: those finished are not run again.
    assert len(rest.sizes) == 1 + 2
    finished = Spy(model)
    assert equal(whole, quick(finished, x, checkpoint=file, **options))
    assert len(finished.sizes) == 1
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_checkpoint_of_another_call_is_refused(rng, tmp_path):
    model, x = binary_problem(rng, 3, 3, rng.normal(size=3))
    file = tmp_path / "certificates"
    quick(model, x, checkpoint=file)
    changes = {"sigma": 0.25, "n0": 99, "n": 201, "alpha": 0.01, "random_state": 1}
    for name, value in changes.items():
        with pytest.raises(ValueError, match=rf"of {name} = .*, not {value}: delete it or pass another path"):
            quick(model, x, checkpoint=file, **{name: value})
    with pytest.raises(ValueError, match="of another x"):
        quick(model, x[::-1], checkpoint=file)
    with torch.no_grad():
        model.weight[0, 0] += 1
    with pytest.raises(ValueError, match="of another model"):
        quick(model, x, checkpoint=file)
    (tmp_path / "text").write_text("certificates")
    with pytest.raises(ValueError, match="damaged"):
        quick(model, x, checkpoint=tmp_path / "text")


def test_model_is_left_as_it_was_and_runs_in_evaluation_mode(rng):
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))
    model[2].eval()
    x = rng.normal(size=(3, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = quick(model, x)
    assert model.training and model[1].training and not model[2].training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert equal(first, quick(model.eval(), x)) and not model.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_precision(rng, dtype):
    distance = np.array([-1.0, 1.0, 0.4])
    model, x = binary_problem(rng, 3, 4, distance)
    found = quick(model.to(dtype), torch.from_numpy(x).to(torch.float64), n=2000)
    assert found.predicted.tolist() == [0, 1, 1]
    assert (found.radius < np.abs(distance) + 0.1).all() and found.radius.dtype == np.float64


def test_certified_accuracy(rng):
    radius = np.array([0.0, 0.5, 1.0, 2.0])
    found = Certificates(np.array([-1, 1, 0, 2]), radius, radius, np.zeros(4, np.int64), 10, np.array([0, 1, 1, 2]))
    assert found.correct().tolist() == [False, True, False, True]
    assert found.certified_accuracy([0.0, 0.5, 0.51, 2.0, 2.1]).tolist() == [0.5, 0.5, 0.25, 0.25, 0.0]
    assert found.certified_accuracy(0.6) == 0.25
    assert found.certified_accuracy([1.0], labels=[0, 1, 0, 2]).tolist() == [0.5]
    with pytest.raises(ValueError, match="without labels"):
        found._replace(labels=None).certified_accuracy([0.0])
    with pytest.raises(ValueError, match="4 examples"):
        found.correct([0, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"sigma": -1.0}, "sigma is -1.0"),
        ({"sigma": np.nan}, "sigma is nan"),
        ({"n0": 0}, "n0 is 0"),
        ({"n": 0}, "n is 0"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": 1.0}, "alpha is 1.0"),
    ],
)
def test_bad_parameters(rng, options, message):
    model, x = binary_problem(rng, 3, 2, rng.normal(size=3))
    with pytest.raises(ValueError, match=message):
        quick(model, x, **options)


def test_a_model_that_gives_nan_is_named(rng):
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN for example 0 under noise"):
        quick(model, rng.normal(size=(3, 4)).astype(np.float32))
