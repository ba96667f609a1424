"""The estimator: against enumeration, scipy and scikit-learn; interruptions; bad models; saved fits."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

import fastdens as fd
from fastdens.distributions.niw import data_prior
from fastdens.inference.gibbs import ChainProblem, stream_keys
from fastdens.inference.schedule import Schedule
from fastdens.inference.starts import random_labels
from tests.inference.problems import sweeps_of
from tests.kernels.gibbs.posterior import CERTAIN, Data, chi_square_pvalue, exact_posterior
from tests.mixtures.problems import QUICK, clusters, quiet_fit, ragged, scipy_log_density

CPU = pytest.param("cpu", "cpu", id="cpu")
INTERPRETER = pytest.param("triton", "cpu", id="triton-interpreter")
GPU = pytest.param("triton", "cuda", id="triton-gpu", marks=pytest.mark.gpu)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.3, None])
def test_partitions_of_the_fit_are_those_of_the_posterior(rng, alpha):
    """From the points alone, with the prior as DESIGN has it, worked out here by other means."""
    x = rng.normal(size=(6, 2)) + rng.integers(0, 2, size=(6, 1))
    data = Data(torch.from_numpy(x), None, torch.from_numpy(x.mean(0))[None], torch.from_numpy(x.var(0) / 3)[None])
    every, probability = exact_posterior(data, alpha, kappa0=0.3)
    dp = fd.DirichletProcessMixtures(
        n_sweeps=100,
        burn_in=99,
        thin=1,
        n_chains=10_000,
        init="random",
        init_components=3,
        kappa0=0.3,
        nu0=3.5,
        alpha=alpha,
        random_state=int(rng.integers(2**31)),
        progress=False,
    )
    quiet_fit(dp, fd.RaggedBatch.from_list([x]))
    assert dp.labels_.shape == (10_000, 6) and dp.n_components_.shape == dp.alpha_.shape == (1, 10_000, 1)
    assert chi_square_pvalue(dp.labels_.numpy(), every, probability) > CERTAIN


@pytest.mark.parametrize(("backend", "device"), [INTERPRETER, GPU])
def test_backends_draw_the_same(rng, backend, device):
    batch = ragged(rng, (7, 5), 2)
    options = {"n_sweeps": 4, "burn_in": 2, "thin": 1, "progress": False, "n_chains": 2}
    want = quiet_fit(fd.DirichletProcessMixtures(backend="cpu", **options), batch)
    got = quiet_fit(fd.DirichletProcessMixtures(backend=backend, **options), batch.to(device))
    assert torch.equal(got.sampled_labels_.cpu(), want.sampled_labels_)
    torch.testing.assert_close(got.log_joint_.cpu(), want.log_joint_)
    torch.testing.assert_close(got.score_samples(batch.to(device)).cpu(), want.score_samples(batch))


@pytest.mark.parametrize("weighting", ["exact", "published"])
def test_log_prob_is_the_student_mixture_of_scipy(rng, weighting):
    batch = ragged(rng, (30, 12), 2)
    order = torch.from_numpy(rng.permutation(42))
    shuffled = fd.RaggedBatch.from_labels(batch.points[order], batch.model_of_row[order])
    dp = quiet_fit(fd.DirichletProcessMixtures(n_chains=2, init_components=4, **QUICK), shuffled)
    assert dp.log_joint_.shape == (2, 2, 4) and dp.sampled_labels_.shape == (4, 2, 42)
    x = rng.normal(size=(9, 2)) * 4
    got = dp.log_prob(x, weighting=weighting)
    own = dp.score_samples(shuffled, weighting=weighting)
    assert torch.equal(dp.density(weighting).log_prob(x), got)
    for m in (0, 1):
        rows = shuffled.index[shuffled.offsets[m] : shuffled.offsets[m + 1]]
        train = batch.points[order][rows].numpy()
        labels = dp.sampled_labels_[..., rows].reshape(8, -1).numpy()
        alphas = dp.alpha_[m].T.reshape(-1).numpy()
        want = scipy_log_density(x, train, labels, alphas, 0.01, 4, 4, weighting)
        np.testing.assert_allclose(got[:, m], want, rtol=1e-9)
        want = scipy_log_density(train, train, labels, alphas, 0.01, 4, 4, weighting)
        np.testing.assert_allclose(own[rows], want, rtol=1e-9)


def test_predictive_integrates_to_one(rng):
    dp = quiet_fit(fd.DirichletProcessMixtures(**QUICK), ragged(rng, (20, 50), 1))
    for m in (0, 1):
        mass, _ = scipy.integrate.quad(
            lambda v, m=m: float(dp.log_prob(torch.tensor([[v]], dtype=torch.float64))[0, m].exp()),
            -np.inf,
            np.inf,
            limit=300,
        )
        assert mass == pytest.approx(1, abs=1e-6)


def test_gradient_of_log_prob(rng):
    dp = quiet_fit(fd.DirichletProcessMixtures(**QUICK), ragged(rng, (20, 15), 2))
    x = torch.from_numpy(rng.normal(size=(3, 2))).requires_grad_()
    assert torch.autograd.gradcheck(dp.log_prob, x)


def test_same_seed_other_company_other_origin(rng):
    parts = [clusters(rng, n, 3) for n in (40, 25, 60)]
    options = {"n_chains": 2, **QUICK}

    def fit(arrays, seed=3):
        return quiet_fit(fd.DirichletProcessMixtures(random_state=seed, **options), fd.RaggedBatch.from_list(arrays))

    first, again, other = fit(parts), fit(parts), fit(parts, seed=4)
    assert torch.equal(first.sampled_labels_, again.sampled_labels_) and torch.equal(first.alpha_, again.alpha_)
    assert not torch.equal(first.sampled_labels_, other.sampled_labels_)
    alone = fit(parts[1:2])
    assert torch.equal(first.sampled_labels_[..., 40:65], alone.sampled_labels_)
    assert torch.equal(first.alpha_[1:2], alone.alpha_) and torch.equal(first.log_joint_[1:2], alone.log_joint_)
    moved = fit([part + 1e4 for part in parts])
    assert torch.equal(first.sampled_labels_, moved.sampled_labels_)
    assert not torch.equal(first.sampled_labels_[:, 0], first.sampled_labels_[:, 1])


def test_a_class_of_float32_far_from_the_origin(rng):
    x = clusters(rng, 200, 4).float()
    dp = quiet_fit(fd.DirichletProcessMixtures(**QUICK), fd.RaggedBatch.from_list([x, x + 4096]))
    assert dp.alpha_.dtype == torch.float64 and dp.log_prob(x).dtype == torch.float32
    score = dp.score_samples(fd.RaggedBatch.from_list([x, x + 4096]))
    assert float((score[:200].mean() - score[200:].mean()).abs()) < 0.2


def test_a_bad_model_is_named_and_left_out(rng):
    parts = [clusters(rng, n, 3) for n in (20, 30, 1, 25)]
    clean = quiet_fit(fd.DirichletProcessMixtures(**QUICK), fd.RaggedBatch.from_list([parts[0], parts[3]]))
    parts[1][4, 2] = float("nan")
    batch = fd.RaggedBatch.from_list(parts, layer="layer3")
    with pytest.raises(
        fd.ModelError, match=r"class 1, layer 'layer3'\) has NaN.*row 24.*class 2.*no variance"
    ) as error:
        fd.DirichletProcessMixtures(**QUICK).fit(batch)
    assert set(error.value.failures) == {1, 2}
    dp = quiet_fit(fd.DirichletProcessMixtures(on_error="skip", **QUICK), batch)
    assert dp.failed_.tolist() == [False, True, True, False] and set(dp.failures_) == {1, 2}
    assert dp.alpha_[1:3].isnan().all() and (dp.n_components_[1:3] == 0).all() and (dp.labels_[:, 20:51] == -1).all()
    assert torch.equal(dp.log_joint_[[0, 3]], clean.log_joint_)
    score = dp.score_samples(batch)
    assert score[20:51].isnan().all() and score[:20].isfinite().all() and score[51:].isfinite().all()
    log_prob = dp.log_prob(parts[0])
    assert log_prob[:, [1, 2]].isnan().all() and torch.equal(log_prob[:, 0], score[:20])


def test_the_plain_chain_is_that_of_the_kernel_from_random_labels(rng):
    """Without searches and moves: single-site updates from ``init_components`` random labels, as in the paper."""
    batch, seed = ragged(rng), int(rng.integers(2**31))
    plain = {"init": "random", "split_merge": 0, "search": 0, "n_chains": 2, "init_components": 4}
    dp = quiet_fit(fd.DirichletProcessMixtures(random_state=seed, **plain, **QUICK), batch)
    prior = data_prior(batch.points, batch.layout, init_components=4)
    keys = stream_keys(batch.points, batch.layout, 2, seed)
    problem = ChainProblem(
        batch.points, batch.layout, prior, keys, torch.zeros(batch.n_models), (1.0, 1.0), Schedule(4, 2), "cpu"
    )
    start = random_labels(keys, batch.layout, 4), torch.ones(3, 2, dtype=torch.float64)
    first = sweeps_of(problem, *start, 1, 4, thin=4)
    rest = sweeps_of(problem, first.labels[-1], first.alpha[..., -1].contiguous(), 5, 8, thin=2)
    assert torch.equal(dp.sampled_labels_, rest.labels) and torch.equal(dp.log_joint_, rest.log_joint[..., 1::2])
    assert torch.equal(dp.alpha_, rest.alpha[..., 1::2]) and (dp.split_merge_ == 0).all()
    assert (dp.n_sweeps_ == 12).all()


def test_searches_and_moves_leave_one_cluster_that_the_plain_chain_does_not(rng):
    """Eight far clusters, all points in one at the start: no chain of single-site updates gets away in a few sweeps."""
    x = torch.from_numpy(rng.normal(size=(160, 8)) + 60 * rng.normal(size=(8, 8)).repeat(20, 0))
    batch, options = fd.RaggedBatch.from_list([x]), {"labels_init": [0] * 160, "alpha": 1e-6, "progress": False}
    plain = quiet_fit(fd.DirichletProcessMixtures(n_sweeps=60, burn_in=40, search=0, split_merge=0, **options), batch)
    moved = quiet_fit(fd.DirichletProcessMixtures(n_sweeps=60, burn_in=40, search=0, split_merge=4, **options), batch)
    annealed = quiet_fit(fd.DirichletProcessMixtures(split_merge=0, **options), batch)
    assert (plain.n_components_ == 1).all()
    for dp in (moved, annealed):
        assert float(dp.log_joint_.mean()) > float(plain.log_joint_.mean()) + 100
    proposed, accepted = moved.split_merge_[0, 0, ::2], moved.split_merge_[0, 0, 1::2]
    assert int(proposed.sum()) <= 240 and accepted[0] >= 1 and (accepted <= proposed).all()
    assert (annealed.split_merge_ == 0).all() and plain.n_sweeps_.tolist() == [60]


def test_labels_that_are_given(rng):
    batch = ragged(rng, (20, 15))
    labels = torch.from_numpy(rng.integers(0, 9, size=(2, 35)))
    options = {"n_chains": 2, **QUICK}
    first = quiet_fit(fd.DirichletProcessMixtures(labels_init=labels, **options), batch)
    second = quiet_fit(fd.DirichletProcessMixtures(labels_init=labels.flip(0), **options), batch)
    assert not torch.equal(first.log_joint_, second.log_joint_)
    for wrong, message in (
        (labels[:, 1:], "labels_init is .*shape"),
        (labels.double(), "integers"),
        (-labels, "from 0"),
    ):
        with pytest.raises(ValueError, match=message):
            fd.DirichletProcessMixtures(labels_init=wrong, **options).fit(batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gibs"}, "did you mean 'gibbs'"),
        ({"n_sweeps": 5, "burn_in": 5}, "keeps no draw"),
        ({"kappa0": 0}, "kappa0"),
        ({"nu0": 1.0}, "nu0"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha_prior": (1.0, 0.0)}, "alpha_prior"),
        ({"thin": 0}, "thin"),
        ({"init_components": 0}, "init_components"),
        ({"backend": "gpu"}, "backend"),
        ({"init": "kmean"}, "did you mean 'kmeans'"),
        ({"split_merge": -0.5}, "split_merge"),
        ({"split_merge": float("inf")}, "split_merge"),
        ({"search": -0.1}, "search"),
        ({"search": 1.5}, "search is 1.5, but it must be a share"),
        ({"stop": "converge"}, "did you mean 'converged'"),
        ({"max_sweeps": 0}, "max_sweeps"),
        ({"max_rhat": 0.0}, "max_rhat"),
        ({"min_ess": -1.0}, "min_ess"),
        ({"stop": "converged", "max_sweeps": 11}, "max_sweeps is 11, but it must be at least n_sweeps, 12"),
        ({"stop": "converged", "burn_in": 6}, "keep 3 draws a chain, too few for an R-hat"),
    ],
)
def test_parameters_are_checked(rng, options, message):
    with pytest.raises(ValueError, match=message):
        fd.DirichletProcessMixtures(**{**QUICK, **options}).fit(ragged(rng))


def test_checkpoints_of_others(rng, tmp_path):
    batch, path = ragged(rng), tmp_path / "chains.ckpt"
    quiet_fit(fd.DirichletProcessMixtures(**QUICK), batch, checkpoint=path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match="random_state = 0, not 1"):
        fd.DirichletProcessMixtures(random_state=1, **QUICK).fit(batch, checkpoint=path)
    with pytest.raises(ValueError, match="other data"):
        fd.DirichletProcessMixtures(**QUICK).fit(ragged(rng), checkpoint=path)
    for length in (0, 5, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"chains\.ckpt"):
            fd.DirichletProcessMixtures(**QUICK).fit(batch, checkpoint=path)
    dp = quiet_fit(fd.DirichletProcessMixtures(**QUICK), batch)
    dp.save(tmp_path / "fit")
    with pytest.raises(ValueError, match="is a saved fit, not a checkpoint"):
        fd.DirichletProcessMixtures(**QUICK).fit(batch, checkpoint=tmp_path / "fit")
    with pytest.raises(ValueError, match="resume is True"):
        fd.DirichletProcessMixtures(**QUICK).fit(batch, resume=True)


KILLED = """
import sys, torch, warnings, fastdens as fd
warnings.simplefilter("ignore")
x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
batch = fd.RaggedBatch.from_labels(x, torch.arange(4000) % 8)
dp = fd.DirichletProcessMixtures(n_sweeps=400, burn_in=100, thin=1, progress=False)
print("started", flush=True)
dp.fit(batch, checkpoint=sys.argv[1], checkpoint_every=1)
dp.save(sys.argv[2], overwrite=True)
"""


@pytest.mark.slow
def test_killed_and_resumed_is_uninterrupted(rng, tmp_path):
    """kill -9 at random moments, most of them within a write of the checkpoint, as it is written at every launch."""
    command = [sys.executable, "-c", KILLED]
    whole, resumed, path = tmp_path / "whole", tmp_path / "resumed", tmp_path / "chains.ckpt"
    subprocess.run([*command, str(tmp_path / "other.ckpt"), str(whole)], check=True, capture_output=True)
    for _ in range(3):
        process = subprocess.Popen([*command, str(path), str(resumed)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(float(rng.uniform(0.1, 0.8)))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(path), str(resumed)], check=True, capture_output=True)
    a, b = fd.load(whole), fd.load(resumed)
    assert torch.equal(a.sampled_labels_, b.sampled_labels_) and torch.equal(a.log_joint_, b.log_joint_)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chains.ckpt", "other.ckpt", "resumed", "whole"]


def test_unfitted_and_foreign_batches(rng):
    with pytest.raises(AttributeError, match="not fitted"):
        fd.DirichletProcessMixtures().log_prob(torch.zeros(1, 2))
    dp = quiet_fit(fd.DirichletProcessMixtures(**QUICK), ragged(rng))
    with pytest.raises(ValueError, match="1 models"):
        dp.score_samples(ragged(rng, (5,)))
    with pytest.raises(ValueError, match="did you mean 'exact'"):
        dp.density("exakt")
    with pytest.raises(ValueError, match="not fitted"):
        fd.DirichletProcessMixtures().score_samples(ragged(rng))


def test_a_class_without_points_is_named_with_what_to_do(rng):
    batch = fd.RaggedBatch.from_labels(rng.normal(size=(20, 2)), np.repeat([0, 2], 10), n_classes=3)
    message = r"model 1 \(class 1\) has no points: add points or leave the class out; on_error='skip' fits all others"
    with pytest.raises(fd.ModelError, match=message):
        fd.DirichletProcessMixtures(**QUICK).fit(batch)
    with pytest.raises(fd.ModelError, match="there is no other model"):
        fd.DirichletProcessMixtures(on_error="skip", **QUICK).fit(fd.RaggedBatch.from_list([np.ones((5, 2))]))


def test_the_door_makes_the_estimator_of_the_method(rng):
    vb = fd.DirichletProcessMixtures("vb", truncation=3, n_sweeps=7)
    assert type(vb) is fd.VariationalDirichletProcessMixtures and isinstance(vb, fd.DirichletProcessMixtures)
    assert (vb.truncation, vb.n_sweeps, vb.thin, vb.method) == (3, 7, 4, "vb")
    assert repr(vb) == "DirichletProcessMixtures(method='vb')"
    dp = fd.DirichletProcessMixtures(n_chains=2)
    assert type(dp) is fd.DirichletProcessMixtures and (dp.method, dp.n_chains, dp.truncation) == ("gibbs", 2, 20)
    assert repr(dp) == "DirichletProcessMixtures(method='gibbs')"
    assert "truncation" in inspect.signature(fd.DirichletProcessMixtures).parameters
    for method in ("gibbs", "vb"):
        with pytest.raises(TypeError, match="truncatoin"):
            fd.DirichletProcessMixtures(method, truncatoin=3)


@pytest.mark.parametrize("method", ["gibbs", "vb"])
def test_a_feature_that_does_not_vary_counts_by_the_floor(rng, method):
    parts = [clusters(rng, 30, 3), clusters(rng, 25, 3)]
    parts[1][:, 1] = rng.normal()
    batch = fd.RaggedBatch.from_list(parts)
    options = QUICK if method == "gibbs" else {"truncation": 4}
    with pytest.raises(fd.ModelError, match=r"class 1\) has no variance in feature 1.*variance_floor"):
        fd.DirichletProcessMixtures(method, variance_floor=0, **options).fit(batch)
    with pytest.warns(fd.ConstantFeatureWarning, match=r"1 of 2 models .*class 1"):
        dp = fd.DirichletProcessMixtures(method, variance_floor=1e-4, **options).fit(batch)
    assert dp.constant_features_.tolist() == [[False] * 3, [False, True, False]]
    variance = parts[1].var(0, unbiased=False)
    scale = dp.prior_.scale_diagonal[1] * 6 ** (2 / 3)
    assert float(scale[1]) == pytest.approx(1e-4 * float(variance[[0, 2]].mean()), rel=1e-9)
    torch.testing.assert_close(scale[[0, 2]], variance[[0, 2]])
    # Nothing else changes, and every score is finite.
    alone = quiet_fit(fd.DirichletProcessMixtures(method, **options), fd.RaggedBatch.from_list(parts[:1]))
    assert torch.equal(dp.score_samples(batch)[:30], alone.score_samples(fd.RaggedBatch.from_list(parts[:1])))
    assert dp.score_samples(batch).isfinite().all()
