"""Fits in parts: the bits of one fit, with failed models, initial values and held-out points; and files of parts."""

from __future__ import annotations

import warnings

import pytest
import torch

import fastdens as fd
from fastdens.mixtures.parts import find_failures, finished_parts, fit_part, join, warn

QUICK = {"n_sweeps": 12, "burn_in": 8, "thin": 2, "progress": False}


@pytest.fixture
def batch(generator):
    """Models of 5 to 60 points, their rows out of order; one has NaN, one is constant and one has two points."""
    sizes = [40, 5, 60, 2, 33, 20, 50]
    labels = torch.cat([torch.full((n,), m) for m, n in enumerate(sizes)])
    x = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64) + labels[:, None]
    x[labels == 4, 1] = 7.0
    x[int((labels == 5).nonzero()[3])] = torch.nan
    order = torch.randperm(len(labels), generator=generator)
    return fd.RaggedBatch.from_labels(x[order], labels[order], layer="layer2")


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(int(torch.randint(1 << 30, ())))


def estimators(batch, on_error="skip"):
    n = len(batch.points)
    labels = torch.arange(n) % 3
    yield fd.GaussianMixtures(3, max_iter=20, on_error=on_error, means_init=torch.randn(batch.n_models, 3, 3))
    yield fd.GaussianMixtures(2, covariance_type="tied", n_init=2, max_iter=5, reg_covar=0, on_error=on_error)
    yield fd.DirichletProcessMixtures(**QUICK, n_chains=2, on_error=on_error)
    yield fd.DirichletProcessMixtures(**QUICK, labels_init=labels, on_error=on_error)
    yield fd.VariationalDirichletProcessMixtures(truncation=4, max_iter=30, on_error=on_error)
    resp = torch.rand(n, 4, dtype=torch.float64)
    yield fd.VariationalDirichletProcessMixtures(
        truncation=4, max_iter=9, resp_init=resp / resp.sum(1, keepdim=True), on_error=on_error
    )
    yield fd.FactorAnalyserMixtures(2, 1, n_init=2, max_iter=9, on_error=on_error)


def parts_of(models, cuts):
    return [part for part in torch.tensor_split(torch.as_tensor(models), cuts) if len(part)]


def assert_same(one, other):
    """Every attribute of a fit, to the last bit."""
    (tensors, facts), (other_tensors, other_facts) = one.get_state(), other.get_state()
    assert facts == other_facts
    assert tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        assert value.dtype == other_tensors[name].dtype, name
        torch.testing.assert_close(value, other_tensors[name], rtol=0, atol=0, equal_nan=True, msg=name)
    assert one.failures_ == other.failures_ and one.classes_ == other.classes_


@pytest.mark.parametrize("which", range(7))
def test_parts_give_the_bits_of_one_fit(batch, which, tmp_path):
    torch.manual_seed(which)
    whole = list(estimators(batch))[which]
    torch.manual_seed(which)
    joined = list(estimators(batch))[which]
    held_out = {}
    if which == 2:
        held_out = {"held_out": fd.RaggedBatch.from_list([torch.randn(2, 3).double()] * 7, layer="layer2")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole.fit(batch, **held_out)
    failures = find_failures(joined, batch)
    assert 5 in failures
    rest = [m for m in range(batch.n_models) if m not in failures]
    first, *others = parts_of(rest, [2, 3])
    fit_part(joined, batch, first, folder=tmp_path, **held_out)
    # A second run takes what is there, and cuts the rest in another way.
    found = list(finished_parts(joined, batch, tmp_path, **held_out))
    assert [fit.models.tolist() for fit in found] == [first.tolist()]
    fits = [fit_part(joined, batch, part, folder=tmp_path, **held_out) for part in others]
    assert not list(tmp_path.glob("*.chains*"))
    assert_same(join(joined, batch, failures, [*fits, *found]), whole)
    assert torch.equal(whole.score_samples(batch).nan_to_num(7), joined.score_samples(batch).nan_to_num(7))
    again = list(finished_parts(joined, batch, tmp_path, **held_out))
    assert_same(join(joined, batch, failures, again), whole)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn(joined, batch)
    with warnings.catch_warnings(record=True) as expected:
        warnings.simplefilter("always")
        whole.fit(batch, **held_out)
    assert [str(w.message) for w in told] == [str(w.message) for w in expected]
    assert {w.filename for w in expected} == {__file__} or not expected


def test_errors_name_the_models_of_the_whole(batch):
    estimator = fd.GaussianMixtures(1, on_error="raise")
    with pytest.raises(fd.ModelError, match=r"model 5 \(class 5, layer 'layer2'\) has NaN"):
        find_failures(estimator, batch)
    # Two points in three dimensions and a constant feature have no covariance with an inverse: found while fitting.
    estimator = fd.GaussianMixtures(1, reg_covar=0, on_error="skip")
    failures = find_failures(estimator, batch)
    fits = [fit_part(estimator, batch, part) for part in parts_of([0, 1, 2, 3, 4, 6], [2])]
    estimator.on_error = "raise"
    with pytest.raises(fd.ModelError, match=r"model 3 .* lost a positive definite") as error:
        join(estimator, batch, failures, fits)
    assert error.value.failures.keys() == {3, 4}


def test_files_of_other_fits_are_refused(batch, tmp_path):
    estimator = fd.GaussianMixtures(2, max_iter=5)
    fit_part(estimator, batch, torch.tensor([0, 2]), folder=tmp_path)
    (path,) = tmp_path.iterdir()
    with pytest.raises(ValueError, match=r"is a fit of some models of n_components = 2, not 3: delete it or pass"):
        list(finished_parts(fd.GaussianMixtures(3, max_iter=5), batch, tmp_path))
    moved = fd.RaggedBatch(batch.points + 1, batch.offsets, batch.index, batch.classes)
    with pytest.raises(ValueError, match=f"{path.name} is a fit of some models of other data"):
        list(finished_parts(estimator, moved, tmp_path))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        list(finished_parts(estimator, batch, tmp_path))
