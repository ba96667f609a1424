"""Training: what the network is shown, what a step does, that it can be repeated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fastdens.training import build_network, predict, train


class Seen(nn.Module):
    """A linear classifier that remembers the batches that it was given while it was trained."""

    def __init__(self, shape=(2, 4, 4), n_classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(torch.Size(shape).numel(), n_classes)
        self.batches = []

    def forward(self, x):
        if self.training:
            self.batches.append(x.clone())
        return self.linear(x.flatten(1))


@pytest.fixture
def problem(rng):
    images = torch.from_numpy(rng.normal(size=(41, 2, 4, 4))).float()
    return images, torch.from_numpy(rng.integers(0, 3, 41))


def trained(model, problem, seed, **options):
    options = {"epochs": 2, "batch_size": 8, **options}
    train(model, *problem, **options, generator=torch.Generator().manual_seed(seed), progress=False)
    return model


def sorted_rows(x):
    rows = x.flatten(1)
    return rows[rows[:, 0].argsort()]


@pytest.mark.parametrize("examples", [None, torch.tensor([40, 3, 5, 11, 9, 30, 2, 1, 17])])
def test_each_epoch_shows_each_example_once_in_near_equal_batches(problem, seed, examples):
    model = trained(Seen(), problem, seed, augment=False, examples=examples)
    images = problem[0] if examples is None else problem[0][examples]
    sizes = [len(batch) for batch in model.batches]
    assert max(sizes) <= 8 and max(sizes) - min(sizes) <= 1
    first, second = torch.cat(model.batches).split(len(images))
    for epoch in (first, second):
        torch.testing.assert_close(sorted_rows(epoch), sorted_rows(images), rtol=0, atol=0)
    assert not torch.equal(first, second)


def test_augmentation_and_noise_are_drawn_anew_and_have_their_size(rng, seed):
    problem = torch.zeros(400, 2, 4, 4), torch.from_numpy(rng.integers(0, 3, 400))
    shown = torch.cat(trained(Seen(), problem, seed, noise=0.3).batches)
    # 25,600 draws: five standard errors of their standard deviation are 0.0067.
    assert float(shown.std()) == pytest.approx(0.3, abs=0.007) and float(shown.mean()) == pytest.approx(0, abs=0.01)
    assert len(torch.unique(shown.flatten(1), dim=0)) == 800
    ramp = torch.linspace(-1, 1, 4).expand(400, 2, 4, 4).contiguous()
    moved = torch.cat(trained(Seen(), (ramp, problem[1]), seed).batches) - ramp[0]
    assert 0.01 < float(moved.abs().mean()) < 0.5 and len(torch.unique(moved.flatten(1), dim=0)) == 800


def cosine(step):
    """Half a cosine from a 25th of the rate up to it in three tenths of the steps, another down to nearly nothing."""
    low, done = (0.5 / 25, step / 2) if step <= 2 else (0.5 / 25e4, (9 - step) / 7)
    return low + (0.5 - low) * (1 - math.cos(math.pi * done)) / 2


def linear(step):
    """Up in 15% of the steps, of which the first is the 0th, and down in the others, from 1e-6 to 1e-6."""
    return np.interp(step, [0, 0.15 * 10 - 1, 9], [1e-6, 0.5, 1e-6])


@pytest.mark.parametrize("schedule", [cosine, linear])
def test_steps_are_nesterovs_over_one_cycle(problem, seed, schedule):
    images, labels = problem
    model = Seen()
    weight, bias = (p.detach().double().clone() for p in model.linear.parameters())
    options = {"augment": False, "weight_decay": 0.01, "learning_rate": 0.5, "schedule": schedule.__name__}
    trained(model, problem, seed, epochs=10, batch_size=41, **options)
    x, one_hot = images.flatten(1).double(), nn.functional.one_hot(labels, 3)
    momentum = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for step in range(10):
        rate = schedule(step)
        residual = torch.softmax(x @ weight.T + bias, 1) - one_hot
        for p, v, gradient in zip((weight, bias), momentum, (residual.T @ x / 41, residual.mean(0)), strict=True):
            gradient += 0.01 * p
            v.mul_(0.9).add_(gradient)
            p -= rate * (gradient + 0.9 * v)
    torch.testing.assert_close(model.linear.weight.detach().double(), weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.linear.bias.detach().double(), bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("options", [{}, {"noise": 0.2, "dtype": "bfloat16"}])
def test_the_same_generator_gives_the_same_bits_and_another_does_not(rng, seed, options, width):
    problem = torch.from_numpy(rng.normal(size=(60, 3, 8, 8))).float(), torch.from_numpy(rng.integers(0, 4, 60))

    def network():
        torch.manual_seed(1)
        return build_network("resnet18", 4, 3, width=width)

    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    one, same = (trained(network(), problem, seed, **options) for _ in range(2))
    other = trained(network(), problem, seed + 1, **options)
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == before
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
        assert value.dtype in (torch.float32, torch.int64)
    assert not torch.equal(one.conv1.weight, other.conv1.weight)


def test_bfloat16_is_close_to_float32_and_is_not_it(problem, seed):
    one = trained(Seen(), problem, seed).linear.weight
    rough = trained(Seen(), problem, seed, dtype="bfloat16").linear.weight
    assert not torch.equal(one, rough)
    torch.testing.assert_close(rough, one, rtol=0, atol=0.02)


def test_predictions_are_those_of_the_network_in_whatever_batches(problem):
    model = Seen().train()
    with torch.inference_mode():
        expected = model.eval()(problem[0]).argmax(1)
    for batch_size in (1, 7, 256):
        found = predict(model.train(), problem[0], batch_size)
        assert torch.equal(found, expected) and found.dtype == torch.int64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 1}, "batch_size is 1, but training needs 2 or more"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"dtype": "float16"}, "dtype is 'float16', but it must be one of 'float32', 'bfloat16'"),
        ({"schedule": "linea"}, "schedule is 'linea', but it must be one of 'cosine', 'linear'"),
        ({"augmentation": "flip"}, "augmentation is 'flip', but it must be one of 'affine', 'crop_flip'"),
        ({"examples": torch.tensor([3])}, "there are 1 examples to train on"),
    ],
)
def test_wrong_options_are_refused(problem, options, message):
    with pytest.raises(ValueError, match=message):
        trained(Seen(), problem, 0, **options)
