"""Fitted estimators that are saved, copied and pickled."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import fastdens as fd
from fastdens import saved_fits
from fastdens.io.state_file import FORMAT_VERSION, write_state
from tests.mixtures.problems import QUICK, clusters, quiet_fit
from tests.saved.write import HERE, answers


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
    assert torch.equal(loaded.predict_proba(batch).nan_to_num(), dp.predict_proba(batch).nan_to_num())
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
    write_state(tmp_path / "layers", "fit", {}, {"estimator": "ClassLayerModels"}, overwrite=False)
    with pytest.raises(ValueError, match="layers has no layers"):
        fd.load(tmp_path / "layers")
    with pytest.raises(fd.NotFittedError, match="UncentredSVD is not fitted"):
        fd.reduction.UncentredSVD(1).save(tmp_path / "svd")
    write_state(tmp_path / "svd", "fit", {}, {"estimator": "UncentredSVD"}, overwrite=False)
    with pytest.raises(ValueError, match="svd has no tensor 'components_'"):
        fd.load(tmp_path / "svd")


def test_a_parameter_of_a_later_version_is_said(rng, tmp_path):
    gm = quiet_fit(fd.GaussianMixtures(1), fd.RaggedBatch.from_list([clusters(rng, 9, 2)]))
    tensors, metadata = gm.get_state()
    metadata["parameters"]["temperature"] = 2.0
    write_state(tmp_path / "fit", "fit", tensors, metadata, overwrite=False)
    with pytest.raises(ValueError, match=r"has the parameter 'temperature', which .* lacks: upgrade fastdens"):
        fd.load(tmp_path / "fit")


def test_projections_and_models_of_layers(rng, tmp_path):
    x = clusters(rng, 40, 4).float()
    svd = fd.reduction.UncentredSVD(3).fit(x)
    svd.save(tmp_path / "svd")
    loaded = fd.load(tmp_path / "svd")
    assert repr(loaded) == repr(svd) and torch.equal(loaded.transform(x), svd.transform(x))
    assert torch.equal(loaded.singular_values_, svd.singular_values_)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        svd.save(tmp_path / "svd")

    batches = {f"layer{d}": fd.RaggedBatch.from_labels(x[:, :d], torch.arange(40) % 2) for d in (2, 4)}
    models = fd.ClassLayerModels.fit(fd.VariationalDirichletProcessMixtures(truncation=2), batches)
    models.save(tmp_path / "models")
    read = fd.load(tmp_path / "models")
    assert list(read) == ["layer2", "layer4"] and read["layer4"].means_.shape == (2, 2, 4)
    with pytest.raises(KeyError, match="the points of layer 'layer2' are missing"):
        read.map(lambda vb, batch: vb.score_samples(batch))
    scores = [
        own.map(lambda vb, batch: vb.score_samples(batch)) for own in (models, fd.ClassLayerModels(batches, read))
    ]
    assert all(torch.equal(scores[0][layer], scores[1][layer]) for layer in batches)


@pytest.mark.parametrize("path", sorted(HERE.glob("format_*/*.safetensors")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_fits_of_earlier_versions_say_the_same(path, tmp_path):
    """Files that are committed as the version of their time wrote them; what is saved again says the same, too."""
    expected = torch.tensor([float(line) for line in path.with_suffix(".txt").read_text().split()], dtype=torch.float64)
    fit = fd.load(path)
    fit.save(tmp_path / "again")
    for read in (fit, fd.load(tmp_path / "again")):
        torch.testing.assert_close(answers(read).flatten(), expected, rtol=1e-9, atol=1e-12)


def test_there_is_a_saved_fit_of_every_kind():
    """Whoever adds an estimator to ``fd.load`` adds it to tests/saved/write.py, too, and runs that."""
    saved = {type(fd.load(path)).__name__ for path in HERE.glob(f"format_{FORMAT_VERSION}/*.safetensors")}
    assert saved == {*saved_fits._ESTIMATORS, "ClassLayerModels"}
