"""Fitted estimators that are saved, copied and pickled."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import fastdens as fd
from fastdens.io.state_file import write_state
from tests.mixtures.problems import QUICK, clusters, quiet_fit


@pytest.mark.parametrize("method", ["gibbs", "vb"])
def test_saved_and_loaded(rng, tmp_path, method):
    parts = [clusters(rng, n, 3) for n in (20, 30, 25)]
    parts[1][0] = float("inf")
    batch = fd.RaggedBatch.from_list(parts, layer="layer4")
    dp = quiet_fit(fd.DirichletProcessMixtures(method, on_error="skip", n_chains=2, **QUICK), batch)
    dp.save(tmp_path / "fit.safetensors")
    loaded = fd.load(tmp_path / "fit.safetensors")
    assert vars(loaded).keys() >= {name for name in vars(dp) if name.endswith("_")}
    assert loaded.failures_ == dp.failures_
    assert torch.equal(loaded.labels_, dp.labels_) and torch.equal(loaded.failed_, dp.failed_)
    assert torch.equal(loaded.score_samples(batch).nan_to_num(), dp.score_samples(batch).nan_to_num())
    assert torch.equal(loaded.log_prob(parts[0]).nan_to_num(), dp.log_prob(parts[0]).nan_to_num())
    with pytest.raises(FileExistsError, match="overwrite=True"):
        dp.save(tmp_path / "fit.safetensors")


def test_saved_gaussian_mixtures(rng, tmp_path):
    parts = [clusters(rng, n, 3) for n in (20, 2, 25)]
    batch = fd.RaggedBatch.from_list(parts, labels=["ant", "bee", "cat"])
    gm = quiet_fit(fd.GaussianMixtures(3, covariance_type="diag", on_error="skip"), batch)
    gm.save(tmp_path / "fit")
    loaded = fd.load(tmp_path / "fit")
    assert isinstance(loaded, fd.GaussianMixtures) and repr(loaded) == repr(gm) and loaded.failures_ == gm.failures_
    assert loaded.classes_ == gm.classes_ == ("ant", "bee", "cat")
    for name in (name for name in vars(gm) if name.endswith("_") and name not in ("failures_", "classes_")):
        assert torch.equal(getattr(loaded, name).nan_to_num(), getattr(gm, name).nan_to_num()), name
    assert torch.equal(loaded.score_samples(batch).nan_to_num(), gm.score_samples(batch).nan_to_num())


def test_a_fit_with_an_earlier_name_of_a_parameter(rng, tmp_path):
    x = clusters(rng, 30, 2)
    dp = quiet_fit(fd.DirichletProcessMixtures(**QUICK), fd.RaggedBatch.from_list([x]))
    tensors, metadata = dp.get_state()
    metadata["parameters"]["precision"] = metadata["parameters"].pop("matmul_precision")
    write_state(tmp_path / "fit", "fit", tensors, metadata, overwrite=False)
    assert torch.equal(fd.load(tmp_path / "fit").log_prob(x), dp.log_prob(x))


@pytest.mark.parametrize("method", ["gibbs", "vb"])
def test_copies_give_the_same_densities(rng, method):
    x = clusters(rng, 30, 2)
    dp = quiet_fit(fd.DirichletProcessMixtures(method, **QUICK), fd.RaggedBatch.from_list([x]))
    for other in (copy.deepcopy(dp), pickle.loads(pickle.dumps(dp))):
        assert type(other) is type(dp) and torch.equal(other.log_prob(x), dp.log_prob(x))


def test_what_cannot_be_saved_or_loaded(tmp_path):
    with pytest.raises(fd.NotFittedError, match="GaussianMixtures is not fitted"):
        fd.GaussianMixtures(1).save(tmp_path / "fit")
    write_state(tmp_path / "fit", "fit", {}, {"estimator": "OtherMixtures"}, overwrite=False)
    with pytest.raises(ValueError, match="OtherMixtures, which this fastdens does not know"):
        fd.load(tmp_path / "fit")
