"""Fits that are interrupted and continued, and fits that go on until chains agree."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
import torch

import fastdens as fd
from tests.mixtures.problems import QUICK, clusters, quiet_fit, ragged, scipy_log_density

# Forty sweeps of burn-in, eight of a search and twenty of an annealed one; a round of twice as many sweeps after that.
STAGES = {"n_sweeps": 72, "burn_in": 40, "thin": 2, "n_chains": 2, "split_merge": 0.7, "progress": False}
ROUNDS = {"stop": "converged", "min_ess": 1e9, "max_sweeps": 140}
# Chains that stay at their start.
STUCK = {"split_merge": 0, "search": 0, "progress": False}
TENSORS = ("sampled_labels_", "alpha_", "log_joint_", "n_components_", "n_sweeps_", "split_merge_", "labels_")


def assert_same(fit, other):
    for name in TENSORS:
        assert torch.equal(getattr(fit, name), getattr(other, name)), name
    assert hasattr(fit, "held_out_log_density_") == hasattr(other, "held_out_log_density_")
    if hasattr(fit, "held_out_log_density_"):
        assert torch.equal(fit.held_out_log_density_, other.held_out_log_density_)


class Stop(KeyboardInterrupt):
    pass


def interrupted(dp, batch, n_calls, **options):
    """Fit, and stop it when it reports progress for the ``n_calls``-th time; whether it was stopped."""
    calls = count(1)

    class Bar:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self.advance

        def __exit__(self, *_):
            return False

        def advance(self, *_):
            if next(calls) == n_calls:
                raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastdens.mixtures.dirichlet_process.progress_bar", Bar)
        try:
            quiet_fit(dp, batch, **options)
        except Stop:
            return True
    return False


@pytest.mark.parametrize("options", [{}, ROUNDS], ids=["sweeps", "converged"])
def test_resumed_in_any_stage_is_uninterrupted(rng, tmp_path, options):
    batch, held_out = ragged(rng, (20, 12)), ragged(rng, (5, 3))
    options = {**STAGES, **options}
    whole = quiet_fit(fd.DirichletProcessMixtures(**options), batch, held_out=held_out)
    n_interruptions = 0
    for n in count(1):
        path, dp = tmp_path / str(n), fd.DirichletProcessMixtures(**options)
        if not interrupted(dp, batch, n, held_out=held_out, checkpoint=path, checkpoint_every=1):
            assert_same(dp, whole)
            break
        n_interruptions += 1
        assert_same(quiet_fit(dp, batch, held_out=held_out, resume=True), whole)
        fresh = quiet_fit(fd.DirichletProcessMixtures(**options), batch, held_out=held_out, checkpoint=path)
        assert_same(fresh, whole)
    # Launches of 4 | 4 | 4 | 16 | 12 | 32 sweeps and of twice 32, and the reports that open a round.
    assert n_interruptions == (1 + 6 if options.get("stop") is None else 1 + 6 + 1 + 2)
    # Each later fit goes on where the one before was stopped.
    # Two reports open two rounds; a launch of which no report came is lost.
    path, stopped = tmp_path / "again and again", 0
    while interrupted(dp := fd.DirichletProcessMixtures(**options), batch, 4, held_out=held_out, checkpoint=path):
        stopped += 1
    assert stopped >= 2
    assert_same(dp, whole)


def test_a_fit_of_more_sweeps_goes_on(rng):
    batch, dp = ragged(rng), fd.DirichletProcessMixtures(**QUICK)
    first = quiet_fit(dp, batch).sampled_labels_
    dp.n_sweeps = 24
    assert dp.fit(batch, resume=True).sampled_labels_.shape[0] == 10
    assert torch.equal(dp.sampled_labels_[:4], first) and dp.n_sweeps_.tolist() == [24] * 3


def test_checkpoints_of_other_limits(rng, tmp_path):
    batch, held_out, path = ragged(rng), ragged(rng), tmp_path / "chains"
    options = {**STAGES, **ROUNDS}
    quiet_fit(fd.DirichletProcessMixtures(**options), batch, held_out=held_out, checkpoint=path)
    for other, message in (
        ({"min_ess": 5.0}, "min_ess = 1000000000.0, not 5.0"),
        ({"max_rhat": 1.5}, "max_rhat = None, not 1.5"),
        ({"n_sweeps": 73}, "n_sweeps = 72, not 73"),
        ({"stop": "sweeps"}, "stop = 'converged', not 'sweeps'"),
        ({"split_merge": 1}, "split_merge = 0.7, not 1"),
        ({"search": 0.4}, "search = 0.7, not 0.4"),
        ({"init": "kmeans"}, "init = 'overdispersed', not 'kmeans'"),
    ):
        with pytest.raises(ValueError, match=message):
            fd.DirichletProcessMixtures(**{**options, **other}).fit(batch, held_out=held_out, checkpoint=path)
    with pytest.raises(ValueError, match="other held-out points"):
        fd.DirichletProcessMixtures(**options).fit(batch, checkpoint=path)
    # Another limit of sweeps only lets the chains go on.
    more = fd.DirichletProcessMixtures(**{**options, "max_sweeps": 1000})
    quiet_fit(more, batch, held_out=held_out, checkpoint=path)
    assert more.n_sweeps_.tolist() == [72 + 32 * 14] * 3


def stuck(rng):
    """A model whose chains are in one state, and one of two far clusters whose chains start together and apart."""
    far = torch.from_numpy(rng.normal(size=(60, 8)) + 50 * (np.arange(60) % 2)[:, None])
    labels = torch.zeros(2, 90, dtype=torch.int64)
    labels[1, 30:] = torch.arange(60) % 2
    return fd.RaggedBatch.from_list([torch.from_numpy(rng.normal(size=(30, 8))), far]), labels


@pytest.mark.parametrize(("max_sweeps", "want"), [(79, 40), (80, 80), (159, 80), (160, 160), (None, 320)])
def test_models_that_agree_leave_and_the_others_go_on_to_the_limit(rng, max_sweeps, want):
    batch, labels = stuck(rng)
    dp = fd.DirichletProcessMixtures(
        n_sweeps=40,
        burn_in=20,
        thin=1,
        n_chains=2,
        alpha=1e-300,
        labels_init=labels,
        stop="converged",
        max_sweeps=max_sweeps,
        **STUCK,
    )
    with pytest.warns(fd.ConvergenceWarning, match=r"1 of 2 models have not converged.*model 1 \(class 1\)"):
        dp.fit(batch)
    assert dp.n_sweeps_.tolist() == [40, want] and dp.log_joint_.shape == (2, 2, 20)
    assert dp.convergence_.converged.tolist() == [True, False]


def test_a_model_draws_the_same_whether_or_not_others_go_on(rng):
    parts = [clusters(rng, n, 3) for n in (40, 25, 1, 60)]
    options = {"n_sweeps": 24, "burn_in": 8, "thin": 2, "n_chains": 2, "stop": "converged", "max_sweeps": 120}
    options |= {"on_error": "skip", "min_ess": 8.0, "max_rhat": 1.2, "progress": False}
    together = quiet_fit(fd.DirichletProcessMixtures(**options), fd.RaggedBatch.from_list(parts))
    assert together.n_sweeps_[2] == 0 and (together.split_merge_[2] == 0).all() and bool(together.failed_[2])
    for m, rows in ((0, slice(0, 40)), (1, slice(40, 65)), (3, slice(66, 126))):
        alone = quiet_fit(fd.DirichletProcessMixtures(**options), fd.RaggedBatch.from_list([parts[m]]))
        assert torch.equal(alone.sampled_labels_, together.sampled_labels_[..., rows])
        for name in ("alpha_", "log_joint_", "n_sweeps_", "split_merge_"):
            assert torch.equal(getattr(alone, name), getattr(together, name)[m : m + 1]), name
        assert torch.equal(alone.convergence_.rhat, together.convergence_.rhat[m : m + 1])
        assert int(alone.n_sweeps_) in (24, 56, 120)


def test_chains_that_agree_at_once_are_a_plain_fit(rng):
    batch = ragged(rng)
    options = {"n_chains": 2, "max_rhat": 1e9, "min_ess": 0.0, **QUICK}
    plain = quiet_fit(fd.DirichletProcessMixtures(**options), batch)
    assert_same(quiet_fit(fd.DirichletProcessMixtures(stop="converged", **options), batch), plain)


def test_held_out_densities_are_those_of_each_draw(rng, tmp_path):
    """By scipy's mixture of one draw, at held-out points in the caller's order."""
    batch = ragged(rng, (20, 14), 2)
    y = torch.from_numpy(rng.permutation(np.repeat([0, 1], [3, 6])))
    x = clusters(rng, 9, 2)
    dp = fd.DirichletProcessMixtures(n_chains=2, init_components=4, **QUICK)
    quiet_fit(dp, batch, held_out=fd.RaggedBatch.from_labels(x, y))
    assert dp.held_out_log_density_.shape == (2, 2, 4) and dp.held_out_log_density_.dtype == torch.float64
    for m, rows in ((0, slice(0, 20)), (1, slice(20, 34))):
        for c in (0, 1):
            for s in (0, 3):
                labels, alpha = dp.sampled_labels_[s, c, rows].numpy(), float(dp.alpha_[m, c, s])
                log = scipy_log_density(x[y == m].numpy(), batch.points[rows].numpy(), [labels], [alpha], 0.01, 4, 4)
                assert float(dp.held_out_log_density_[m, c, s]) == pytest.approx(log.mean(), rel=1e-9)
    dp.save(tmp_path / "fit")
    loaded = fd.load(tmp_path / "fit")
    assert torch.equal(loaded.held_out_log_density_, dp.held_out_log_density_)
    assert str(loaded.convergence_) == str(dp.convergence_)
    assert set(loaded.convergence_.rhat_of) == {"log-joint", "held-out log-density"}
    # A fit without held-out points forgets those before.
    assert not hasattr(quiet_fit(dp, batch), "held_out_log_density_")


def test_held_out_densities_count(rng):
    """Mirrored chains have one log-joint: each parts the clusters on one side of the origin, not on the other."""
    side = rng.normal(size=(40, 4)) + np.repeat([30, 50], 20)[:, None]
    batch, held_out = (fd.RaggedBatch.from_list([x]) for x in (np.concatenate([side, -side]), side[::4]))
    labels = np.repeat([[0, 1, 2, 2], [2, 2, 0, 1]], 20, axis=1)
    options = {"n_sweeps": 100, "burn_in": 20, "thin": 1, "n_chains": 2, "labels_init": labels, **STUCK}
    options |= {"stop": "converged", "max_rhat": 1.5, "min_ess": 0.0, "max_sweeps": 260}
    without = quiet_fit(fd.DirichletProcessMixtures(**options), batch)
    assert without.n_sweeps_.tolist() == [100] and without.convergence_.converged.all()
    dp = quiet_fit(fd.DirichletProcessMixtures(**options), batch, held_out=held_out)
    assert dp.n_sweeps_.tolist() == [260] and not dp.convergence_.converged.any()
    found = dp.convergence_.rhat_of
    assert found["log-joint"] < 1.5 < found["held-out log-density"] == dp.convergence_.rhat


def test_held_out_points_of_every_model_that_is_fitted(rng):
    parts = [clusters(rng, n, 2) for n in (20, 1, 15)]
    batch, dp = fd.RaggedBatch.from_list(parts), fd.DirichletProcessMixtures(on_error="skip", **QUICK)
    x = clusters(rng, 6, 2)
    with pytest.raises(
        fd.ModelError, match=r"model 2 \(class 2\) has no points: .*; held_out needs points of each model"
    ):
        dp.fit(batch, held_out=fd.RaggedBatch.from_labels(x, torch.arange(6) % 2, n_classes=3))
    bad = x.clone()
    bad[4, 1] = torch.inf
    with pytest.raises(fd.ModelError, match=r"model 0 \(class 0\) has NaN or infinity, first in row 4"):
        dp.fit(batch, held_out=fd.RaggedBatch.from_labels(bad, torch.arange(6) % 2 * 2, n_classes=3))
    for other in (fd.RaggedBatch.from_list([x, x]), fd.RaggedBatch.from_list([x[:, :1]] * 3)):
        with pytest.raises(ValueError, match="but 3 models with D = 2 were fitted"):
            dp.fit(batch, held_out=other)
    with pytest.raises(TypeError, match="expected a RaggedBatch"):
        dp.fit(batch, held_out=x)
    # A model that failed needs none.
    quiet_fit(dp, batch, held_out=fd.RaggedBatch.from_labels(x, torch.arange(6) % 2 * 2, n_classes=3))
    assert dp.held_out_log_density_[1].isnan().all() and dp.held_out_log_density_[[0, 2]].isfinite().all()
