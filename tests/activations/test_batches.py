"""What a network is given of a batch, and what the labels are."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fastdens.activations import extract
from tests.activations.test_recording import plain_tensors

B, D = 5, 3
Sample = namedtuple("Sample", ["x", "y"])


@dataclass
class Record:
    image: torch.Tensor
    y: torch.Tensor


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D, 4)

    def forward(self, x):
        return self.layer(x)


class Two(One):
    def forward(self, x, mask, *, scale=1.0):
        return self.layer(x * mask) * scale


class Tokens(One):
    """Takes what Hugging Face models take, and refuses labels."""

    def forward(self, input_values=None, attention_mask=None, labels=None, **kwargs):
        assert labels is None and not kwargs
        return self.layer(input_values * attention_mask)


class PassesOn(One):
    """Hands names that it does not know to a part, as Hugging Face models do."""

    def forward(self, x=None, labels=None, **names):
        return self.inner(x, **names)

    def inner(self, x, mask=1.0):
        return self.layer(x * mask)


class AnyNames(One):
    def forward(self, *args, **kwargs):
        return self.layer(sum(args) + sum(kwargs.values()))


@pytest.fixture
def problem(rng):
    """Inputs, a mask and labels."""
    x = plain_tensors(rng, B, D)
    return x, torch.from_numpy(rng.integers(0, 2, (B, D))).float(), torch.from_numpy(rng.integers(0, 9, B))


def run(model, batch, **options):
    return extract(model, [batch], ["layer"], progress=False, **options)


PATHS = [f"image{i}.png" for i in range(B)]


@pytest.mark.parametrize(
    ("make", "labelled"),
    [
        (lambda x, m, y: x, False),
        (lambda x, m, y: x.numpy(), False),
        (lambda x, m, y: (x.numpy()[::-1].copy()[::-1], y.numpy()[::-1].copy()[::-1]), True),
        (lambda x, m, y: (x.numpy().astype(">f4"), y.numpy().astype(">i2")), True),
        (lambda x, m, y: (x,), False),
        (lambda x, m, y: [x, None], False),
        (lambda x, m, y: (x, PATHS), False),
        (lambda x, m, y: (x, tuple(PATHS), y), True),
        (lambda x, m, y: (x, np.array(PATHS)), False),
        (lambda x, m, y: (x, y, PATHS), True),
        (lambda x, m, y: (x, y, m), True),
        (lambda x, m, y: (x, {"path": PATHS}), False),
        (lambda x, m, y: (x, {"path": PATHS, "folder": "a"}, y), True),
        (lambda x, m, y: [x, y.tolist()], True),
        (lambda x, m, y: (x, y[:, None].numpy().astype(np.uint8)), True),
        (lambda x, m, y: Sample(x, y.short()), True),
        (lambda x, m, y: {"x": x, "y": y}, True),
        (lambda x, m, y: {"image": x, "label": y, "path": PATHS}, True),
        (lambda x, m, y: {"image": x, "index": torch.arange(B), "target": y}, True),
        (lambda x, m, y: UserDict(image=x.numpy(), labels=y), True),
        (lambda x, m, y: {"x": x, "mask": m, "path": PATHS}, False),
        (lambda x, m, y: {"x": x, "label": PATHS}, False),
        (lambda x, m, y: ({"x": x}, y), True),
        (lambda x, m, y: ({"image": x, "target": y}, PATHS), True),
        (lambda x, m, y: (x.double(), y), True),
        (lambda x, m, y: (x.requires_grad_(), y), True),
    ],
)
def test_the_plain_meaning_of_a_batch(problem, make, labelled):
    x, _, y = problem
    model = One()
    found = run(model, make(*problem))
    torch.testing.assert_close(found.features["layer"], model.layer(x).detach())
    assert torch.equal(found.labels, y) if labelled else found.labels is None


@pytest.mark.parametrize(
    ("kind", "make", "labelled"),
    [
        (Two, lambda x, m, y: (x, m), False),
        (Two, lambda x, m, y: (x, m, y), True),
        (Two, lambda x, m, y: {"mask": m, "x": x, "label": y}, True),
        (Tokens, lambda x, m, y: {"input_values": x, "attention_mask": m, "labels": y}, True),
        (Tokens, lambda x, m, y: UserDict(attention_mask=m, input_values=x, label=y), True),
        (PassesOn, lambda x, m, y: {"x": x, "mask": m, "labels": y}, True),
        (PassesOn, lambda x, m, y: {"image": x * m, "labels": y, "path": PATHS}, True),
        (AnyNames, lambda x, m, y: {"a": x, "b": x * (m - 1), "target": y, "path": PATHS}, True),
    ],
)
def test_networks_of_several_inputs(problem, kind, make, labelled):
    x, mask, y = problem
    model = kind()
    found = run(model, make(*problem))
    torch.testing.assert_close(found.features["layer"], model.layer(x * mask).detach())
    assert torch.equal(found.labels, y) if labelled else found.labels is None


@pytest.mark.parametrize(
    ("make", "options", "labelled"),
    [
        (lambda x, m, y: (PATHS, x, y), {"inputs": 1}, True),
        (lambda x, m, y: (y, x), {"inputs": -1}, True),
        (lambda x, m, y: (m, x, y), {"inputs": 1, "labels": 2}, True),
        (lambda x, m, y: (x, m), {"labels": False}, False),
        (lambda x, m, y: (x, m, y), {"labels": 2}, True),
        (lambda x, m, y: (x, {"class": y}), {"labels": lambda batch: batch[1]["class"]}, True),
        (lambda x, m, y: {"a": x, "b": m, "class": y}, {"inputs": "a", "labels": "class"}, True),
        (lambda x, m, y: {"a": {"x": x}, "y": y}, {"inputs": "a"}, True),
        (lambda x, m, y: {"a": x, "b": m, "y": y}, {"inputs": ["a"], "labels": False}, False),
        (lambda x, m, y: {"a": x, "label": y, "y": m}, {"inputs": "a", "labels": "label"}, True),
        (lambda x, m, y: Record(x, y), {"inputs": "image"}, True),
        (lambda x, m, y: (m, x), {"inputs": lambda batch: batch[1], "labels": False}, False),
        (lambda x, m, y: {"a": x, "y": y}, {"inputs": lambda batch: {"x": batch["a"]}}, True),
        (lambda x, m, y: (x / 2, y), {"inputs": lambda batch: (2 * batch[0],)}, True),
    ],
)
def test_options_say_what_a_batch_means(problem, make, options, labelled):
    x, _, y = problem
    model = One()
    found = run(model, make(*problem), **options)
    torch.testing.assert_close(found.features["layer"], model.layer(x).detach())
    assert torch.equal(found.labels, y) if labelled else found.labels is None


@pytest.mark.parametrize("keys", [(0, 1), (-3, -2)])
def test_several_inputs_by_index(problem, keys):
    x, mask, y = problem
    model = Two()
    found = run(model, problem, inputs=keys)
    torch.testing.assert_close(found.features["layer"], model.layer(x * mask).detach())
    assert torch.equal(found.labels, y)
    by_key = run(model, {"a": x, "b": mask}, inputs=["a", "b"])
    assert torch.equal(by_key.features["layer"], found.features["layer"])


@pytest.mark.parametrize(
    ("kind", "make", "options", "message"),
    [
        (One, lambda x, m, y: {"a": x, "b": m}, {}, r"dict of 'a' .*'b' .*the model takes 'x': pass as inputs"),
        (One, lambda x, m, y: {"path": PATHS}, {}, "the model takes 'x': pass as inputs"),
        (Two, lambda x, m, y: {"x": x}, {}, "the model takes 'x', 'mask'"),
        (Two, lambda x, m, y: (x, PATHS), {}, "tuple of Tensor, list, but the model takes 'x', 'mask'"),
        (Two, lambda x, m, y: (x,), {}, r"given Tensor \[5, 3\] of torch.float32, but it takes 'x', 'mask'"),
        (One, lambda x, m, y: (x, m), {"inputs": [0, 1]}, "but it takes 'x'"),
        (
            One,
            lambda x, m, y: {"a": x},
            {"inputs": lambda batch: {"z": batch["a"]}},
            "given z = Tensor .* it takes 'x'",
        ),
        (One, lambda x, m, y: x, {"inputs": 1.5}, "inputs is 1.5"),
        (One, lambda x, m, y: x, {"inputs": []}, r"inputs is \[\]"),
        (One, lambda x, m, y: x, {"labels": 1.5}, "labels is 1.5"),
        (One, lambda x, m, y: "text", {}, "yielded str, in which there is no tensor"),
        (One, lambda x, m, y: (PATHS, y), {}, "tuple of list, Tensor, but the model takes 'x'"),
        (One, lambda x, m, y: (), {}, "tuple of nothing"),
        (One, lambda x, m, y: Record(x, y), {}, "yielded Record"),
        (One, lambda x, m, y: torch.tensor(3.0), {}, "in which there is no tensor of inputs"),
        (One, lambda x, m, y: {"a": x}, {"inputs": "b"}, "inputs is 'b', but the loader yielded dict of 'a'"),
        (One, lambda x, m, y: (x, y), {"labels": 2}, "labels is 2"),
        (One, lambda x, m, y: (x, m), {}, "one integer per input; pass labels=False"),
        (One, lambda x, m, y: (x, y[:2]), {}, "one integer per input"),
        (
            One,
            lambda x, m, y: (x, [{"boxes": m}] * B),
            {},
            "list of dict, dict, dict, dict, ... in the place of labels",
        ),
        (One, lambda x, m, y: (x, {"boxes": m}), {}, "dict of 'boxes' .*in the place of labels"),
        (One, lambda x, m, y: {"x": x, "label": y, "target": y}, {}, "several parts may be labels"),
        (One, lambda x, m, y: (m, x, y), {"inputs": 1}, "several parts may be labels"),
        (One, lambda x, m, y: (x, y), {"labels": True}, "labels is True"),
    ],
)
def test_what_is_not_plain_is_one_sentence(problem, kind, make, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run(kind(), make(*problem), **options)


def test_errors_of_the_network_say_what_it_was_given(problem):
    x, _, y = problem
    with pytest.raises(RuntimeError) as caught:
        run(One(), {"x": x[:, :2], "label": y})
    assert caught.value.__notes__ == [
        "The model ran on x = Tensor [5, 2] of torch.float32; inputs= says which parts of a batch it is given."
    ]


def test_a_list_of_tensors_is_one_example_each(problem):
    class Detector(One):
        def forward(self, images):
            return self.layer(torch.stack([image.mean(0) for image in images]))

    images = [torch.randn(height, D) for height in (2, 5, 9)]
    found = run(Detector(), (images, PATHS), inputs=lambda batch: (batch[0],)).features["layer"]
    assert found.shape == (3, 4)


@pytest.mark.parametrize("make", [lambda x: x, lambda x: (x,), lambda x: {"input": x}, lambda x: ({"input": x},)])
def test_what_belongs_to_the_loader_stays_as_it_is(problem, make):
    x = problem[0]
    before = x.clone()
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Hardtanh(inplace=True))
    found = extract(model, [make(x)], ["0"], progress=False).features["0"]
    assert torch.equal(x, before) and torch.equal(found, before.relu())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_get_the_type_of_the_model(problem, dtype):
    x, _, y = problem
    model = One().to(dtype)
    found = run(model, (x, y)).features["layer"]
    assert found.dtype == torch.float32
    assert torch.equal(found, model.layer(x.to(dtype)).detach().float())
    # Integers are no inputs to round.
    embedding = nn.Sequential(nn.Embedding(9, 4)).to(dtype)
    assert torch.equal(extract(embedding, [y], ["0"], progress=False).features["0"], embedding(y).detach().float())


def test_loaders_of_torch(problem):
    x, _, y = problem

    class WithPaths(Dataset):
        def __len__(self):
            return B

        def __getitem__(self, i):
            return {"image": x[i], "label": int(y[i]), "path": PATHS[i]}

    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(x[i], int(y[i]), PATHS[i]) for i in range(B)])

    model = One()
    for data in (WithPaths(), Stream()):
        found = extract(model, DataLoader(data, batch_size=2), ["layer"], progress=True)
        torch.testing.assert_close(found.features["layer"], model.layer(x).detach())
        assert torch.equal(found.labels, y)
