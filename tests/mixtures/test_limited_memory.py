"""Fits and scores below a limit on memory: in groups of models, in memory and on disk, to the bits of one fit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import fastdens as fd

QUICK = {"n_sweeps": 12, "burn_in": 8, "thin": 2, "progress": False}
SIZES = [40, 5, 60, 2, 33, 20, 50]


@pytest.fixture
def files(tmp_path, rng):
    """Models of 2 to 60 points, their rows out of order; one has NaN, and one a feature that does not vary."""
    y = np.repeat([f"class{m}" for m in range(len(SIZES))], SIZES)
    x = rng.normal(size=(len(y), 3)) + np.repeat(np.arange(len(SIZES)), SIZES)[:, None]
    x[y == "class4", 1] = 7.0
    x[np.flatnonzero(y == "class5")[3], 2] = np.nan
    order = rng.permutation(len(y))
    np.save(tmp_path / "x.npy", x[order])
    np.save(tmp_path / "y.npy", y[order])
    return tmp_path / "x.npy", tmp_path / "y.npy"


@pytest.fixture
def smallest_groups(monkeypatch):
    """As little room as the largest model needs, and a count of the groups."""
    counts = []

    def room_under(limit, needed, purpose):
        counts.append(purpose)
        return needed

    monkeypatch.setattr("fastdens.model_rows.room_under", room_under)
    return counts


def in_memory(files):
    return fd.RaggedBatch.from_labels(np.load(files[0]), np.load(files[1]), layer="layer2")


def on_disk(files):
    return fd.RaggedBatch.from_files(*files, layer="layer2", max_memory="64GiB")


def estimators(n):
    gaussian, sampled, variational = (
        fd.GaussianMixtures,
        fd.DirichletProcessMixtures,
        fd.VariationalDirichletProcessMixtures,
    )
    common = {"on_error": "skip", "random_state": 3}
    resp = torch.rand(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    yield lambda **kw: gaussian(2, n_init=2, max_iter=8, **common | kw)
    yield lambda **kw: gaussian(2, covariance_type="tied", dtype=torch.float32, max_iter=0, reg_covar=0, **common | kw)
    yield lambda **kw: sampled(**QUICK, n_chains=2, **common | kw)
    yield lambda **kw: sampled(**QUICK, labels_init=torch.arange(n) % 3, **common | kw)
    yield lambda **kw: variational(truncation=4, max_iter=9, **common | kw)
    yield lambda **kw: variational(
        truncation=4, max_iter=9, resp_init=resp / resp.sum(1, keepdim=True), dtype=torch.float32, **common | kw
    )
    yield lambda **kw: fd.FactorAnalyserMixtures(2, 2, max_iter=8, dtype=torch.float32, **common | kw)


def fitted(estimator, batch, **options):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        estimator.fit(batch, **options)
    return estimator, [(str(w.message), w.category, w.filename) for w in told]


def assert_same(one, other):
    (tensors, facts), (other_tensors, other_facts) = one.get_state(), other.get_state()
    assert facts == other_facts and tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        assert value.dtype == other_tensors[name].dtype, name
        torch.testing.assert_close(value, other_tensors[name], rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("which", range(7))
def test_groups_give_the_bits_of_one_fit(files, which, smallest_groups, tmp_path):
    make = list(estimators(sum(SIZES)))[which]
    memory, disk = in_memory(files), on_disk(files)
    whole, told = fitted(make(), memory)
    assert {w[2] for w in told} <= {__file__}
    for batch, options in ((memory, {"max_memory": "64GiB"}), (disk, {})):
        own, own_told = fitted(make(), batch, **options)
        assert own_told == told
        assert_same(own, whole)
    names = ["score_samples", "predict_proba", "predict", "score", "bic"] if which in (0, 1, 6) else ["score_samples"]
    for name in names:
        expected = getattr(whole, name)(memory)
        assert torch.equal(getattr(own, name)(disk).nan_to_num(9), expected.nan_to_num(9)), name
    x = torch.randn(5, 3, dtype=torch.float64)
    assert torch.equal(own.log_prob(x).nan_to_num(9), whole.log_prob(x).nan_to_num(9))
    density, of_whole = own.density(), whole.density()
    assert torch.equal(density.score_samples(disk).nan_to_num(9), of_whole.score_samples(memory).nan_to_num(9))
    from fastdens.analysis import mean_pairwise_distance

    for of in (
        lambda batch: density.relative_entropy(batch, 50, torch.Generator().manual_seed(1)),
        mean_pairwise_distance,
    ):
        assert torch.equal(of(disk).value.nan_to_num(9), of(memory).value.nan_to_num(9))
    if which in (2, 3):
        torch.testing.assert_close(own.leave_one_out(), whole.leave_one_out(), rtol=1e-12, atol=1e-12, equal_nan=True)
        options = {"average": "log_density", "weighting": "published"}
        scores = own.score_samples(disk, **options).nan_to_num(9)
        assert torch.equal(scores, whole.score_samples(memory, **options).nan_to_num(9))
        assert torch.equal(own.co_clustering(2), whole.co_clustering(2))
    own.save(tmp_path / "fit.safetensors")
    assert_same(fd.load(tmp_path / "fit.safetensors"), whole)
    assert {p.partition(" model")[0] for p in smallest_groups} >= {"fitting", "scoring"}


@pytest.mark.parametrize("which", range(7))
def test_errors_are_those_of_one_fit(files, which, smallest_groups):
    make = list(estimators(sum(SIZES)))[which]
    errors = []
    for batch in (in_memory(files), on_disk(files)):
        with pytest.raises(fd.ModelError, match=r"model 5 \(class 'class5', layer 'layer2'\) has NaN") as error:
            make(on_error="raise").fit(batch)
        errors.append((str(error.value), error.value.failures))
    assert errors[0] == errors[1]


def test_failures_while_fitting_are_named_together(files, smallest_groups):
    x = np.load(files[0])
    np.save(files[0], np.nan_to_num(x))
    errors = []
    for batch in (in_memory(files), on_disk(files)):
        with pytest.raises(fd.ModelError, match="lost a positive definite") as error:
            fd.GaussianMixtures(1, reg_covar=0).fit(batch)
        errors.append((str(error.value), error.value.failures))
    assert errors[0] == errors[1] and errors[0][1].keys() == {3, 4}


def test_all_models_may_fail(files, smallest_groups):
    gm = fd.GaussianMixtures(100, on_error="skip").fit(on_disk(files))
    assert bool(gm.failed_.all()) and bool(gm.means_.isnan().all()) and gm.means_.shape == (7, 100, 3)
    assert gm.failures_ == fd.GaussianMixtures(100, on_error="skip").fit(in_memory(files)).failures_


def test_held_out_points_may_be_on_disk(files, smallest_groups, tmp_path, rng):
    np.save(tmp_path / "other.npy", rng.normal(size=(14, 3)))
    y = np.array([f"class{m % 7}" for m in range(14)])
    held_out = fd.RaggedBatch.from_files(tmp_path / "other.npy", y, max_memory="64GiB")
    make = fd.DirichletProcessMixtures
    options = {**QUICK, "n_chains": 2, "on_error": "skip"}
    whole, _ = fitted(make(**options), in_memory(files), held_out=held_out.load())
    own, _ = fitted(make(**options), on_disk(files), held_out=held_out)
    assert_same(own, whole)
    few = fd.RaggedBatch.from_labels(rng.normal(size=(6, 3)), y[[0, 1, 2, 3, 5, 6]], classes=held_out.classes)
    with pytest.raises(fd.ModelError, match=r"model 4 \(class 'class4'\) has no points"):
        make(**options).fit(on_disk(files), held_out=few)


def test_a_checkpoint_of_groups_is_gone_on_with(files, smallest_groups, tmp_path, monkeypatch):
    whole, _ = fitted(fd.DirichletProcessMixtures(**QUICK, on_error="skip"), in_memory(files))
    fit_part, calls = fd.mixtures.parts.fit_part, []

    def interrupted(*values, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(values[2])
        return fit_part(*values, **options)

    monkeypatch.setattr("fastdens.mixtures.limited_memory.fit_part", interrupted)
    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        fd.DirichletProcessMixtures(**QUICK, on_error="skip").fit(on_disk(files), checkpoint=folder)
    assert len(list(folder.iterdir())) == 2
    monkeypatch.setattr("fastdens.mixtures.limited_memory.fit_part", fit_part)
    own, _ = fitted(fd.DirichletProcessMixtures(**QUICK, on_error="skip"), on_disk(files), checkpoint=folder)
    assert_same(own, whole)
    with pytest.raises(ValueError, match="resume is True"):
        own.fit(on_disk(files), resume=True)


@pytest.mark.parametrize("limit", ["1MiB", 10])
def test_a_limit_that_is_too_small_names_the_largest_model(files, limit):
    with pytest.raises(ValueError, match=r"fitting model 2 \(class 'class2', layer 'layer2'\) needs .*: pass at least"):
        fd.GaussianMixtures(2).fit(in_memory(files), max_memory=limit)


@pytest.mark.parametrize("limit", ["much", 0, True, 1.5, "-1GiB"])
def test_a_limit_that_is_none_is_an_error(files, limit):
    with pytest.raises((TypeError, ValueError), match=r"max_memory is .*, but it must be a number of bytes"):
        fd.GaussianMixtures(2).fit(in_memory(files), max_memory=limit)
