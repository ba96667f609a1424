"""Fits of points of every kind, and estimators with parameters of every kind."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

import fastdens as fd
from tests.contract import floating_parts, outcome
from tests.generated.strategies import arrays, choices_or_not, floats_or_not, integers_or_not, labels, usual_batch

KINDS = ("full", "diag", "spherical", "tied")
BACKENDS = ("auto", "cpu", "reference")
FITTED = [(30, 2), (30, 2), (24, 1), (40, 3), (7, 2), (1, 2), (2, 2)]


def assert_no_silent_nan(results, warned, failures=()):
    """No NaN in results of finite points, unless a failure or a warning tells of it."""
    if not warned and not failures:
        for part in floating_parts(results):
            assert not bool(part.isnan().any()), "NaN without a word"


def gaussian_mixtures(draw):
    return fd.GaussianMixtures(
        draw(st.integers(1, 3)),
        covariance_type=draw(st.sampled_from(KINDS)),
        init_params=draw(st.sampled_from(["kmeans++", "kmeans", "random", "random_from_data"])),
        max_iter=draw(st.integers(0, 4)),
        tol=0,
        n_init=draw(st.integers(1, 2)),
        on_error=draw(st.sampled_from(["raise", "skip"])),
        backend=draw(st.sampled_from(BACKENDS)),
        dtype=draw(st.sampled_from([None, None, torch.float32, torch.float64])),
    )


def samplers(draw):
    return fd.DirichletProcessMixtures(
        n_sweeps=draw(st.integers(4, 8)),
        burn_in=2,
        thin=2,
        n_chains=draw(st.integers(1, 2)),
        init=draw(st.sampled_from(["overdispersed", "kmeans", "random"])),
        variance_floor=draw(st.sampled_from([0.0, 1e-6])),
        alpha=draw(st.sampled_from([None, 1.0])),
        on_error=draw(st.sampled_from(["raise", "skip"])),
        dtype=draw(st.sampled_from([None, torch.float32])),
        progress=False,
    )


def variational(draw):
    return fd.VariationalDirichletProcessMixtures(
        truncation=draw(st.integers(1, 4)),
        max_iter=draw(st.integers(1, 3)),
        tol=0,
        on_error=draw(st.sampled_from(["raise", "skip"])),
        backend=draw(st.sampled_from(BACKENDS)),
        dtype=draw(st.sampled_from([None, torch.float32])),
    )


@given(arrays(FITTED), st.data())
def test_fits_are_finite_or_name_the_models_that_fail(points, data):
    make = data.draw(st.sampled_from([gaussian_mixtures, gaussian_mixtures, variational, samplers]))
    y = data.draw(labels(len(points.numbers) if points.numbers is not None and points.numbers.ndim else 5))
    batch, _ = outcome(lambda: fd.RaggedBatch.from_labels(points.given, y))
    if batch is None:
        return
    estimator = make(data.draw)
    if make is not samplers and data.draw(st.booleans()):
        weight = st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(0, 1e300))
        batch = batch.weighted(data.draw(st.lists(weight, min_size=batch.n_points, max_size=batch.n_points)))
    fit, warned = outcome(lambda: estimator.fit(batch))
    if fit is None:
        return
    finite = bool(batch.without_zero_weights().points.isfinite().all())
    assert finite or fit.failures_, "a fit of what is not finite"
    assert set(fit.failures_) == set(fit.failed_.nonzero()[:, 0].tolist())
    score, warned_too = outcome(lambda: (fit.score_samples(batch), fit.log_prob(batch.points)))
    assert_no_silent_nan(score, warned + warned_too, fit.failures_)
    attributes = {
        name: value for name, value in vars(fit).items() if name.endswith("_") and not name.startswith("rhat")
    }
    attributes.pop("effective_sample_size_", None)
    assert_no_silent_nan(attributes, warned, fit.failures_)
    draws, _ = outcome(lambda: fit.density().sample(2, torch.Generator().manual_seed(0)))
    assert_no_silent_nan(draws, warned, fit.failures_)


@given(
    arrays([(30, 2), (30, 2), (7, 2), (0, 2), (30, 3), (30,)]), st.sampled_from(KINDS), st.sampled_from(["f8", "f4"])
)
def test_points_of_every_kind_under_usual_mixtures(points, kind, dtype):
    gm = fd.GaussianMixtures(2, covariance_type=kind, max_iter=3, tol=0).fit(usual_batch(0, dtype=dtype))
    found, _ = outcome(lambda: gm.log_prob(points.given))
    if found is None or points.numbers is None:
        return
    # What is not finite has no density, nor has what is too far for its square.
    near = torch.from_numpy(np.abs(points.numbers) < (1e140 if dtype == "f8" else 1e15)).all(1)
    assert found.shape == (len(near), 2)
    assert not bool(found[near].isnan().any())
    assert not bool((found == torch.inf).any())


@given(st.data())
def test_parameters_of_gaussian_mixtures(data):
    number, real = integers_or_not(), floats_or_not()
    init = st.one_of(st.none(), st.none(), real, arrays([(2, 2), (2, 2, 2), (2, 2, 2, 2), (2,)]).map(lambda x: x.given))
    options = data.draw(
        st.fixed_dictionaries(
            {"n_components": st.one_of(st.just(2), number)},
            optional={
                "covariance_type": choices_or_not(*KINDS),
                "tol": real,
                "reg_covar": real,
                "max_iter": st.sampled_from([0, 1, 2, -1, 1.5, None, "x", True]),
                "n_init": st.sampled_from([1, 2, 0, -1, 1.5, None, "x"]),
                "init_params": choices_or_not("kmeans++", "random"),
                "weights_init": init,
                "means_init": init,
                "precisions_init": init,
                "random_state": number,
                "backend": choices_or_not(*BACKENDS),
                "on_error": choices_or_not("raise", "skip"),
                "dtype": st.sampled_from([None, torch.float32, torch.float16, torch.int64, "float32", float]),
                "matmul_precision": choices_or_not("ieee", "tf32x3"),
            },
        )
    )
    batch = usual_batch(1)
    fit, warned = outcome(lambda: fd.GaussianMixtures(**options).fit(batch))
    if fit is not None:
        assert_no_silent_nan((fit.means_, fit.score_samples(batch)), warned, fit.failures_)


@given(st.data())
def test_parameters_of_dirichlet_process_mixtures(data):
    number, real = integers_or_not(), floats_or_not()
    few = st.sampled_from([1, 2, 4, 0, -1, 1.5, None, "x", True])
    options = data.draw(
        st.fixed_dictionaries(
            {"n_sweeps": st.sampled_from([4, 4, 4, 6, 0, "x"]), "burn_in": st.sampled_from([2, 2, 2, 0, 9, -1])},
            optional={
                "method": choices_or_not("gibbs", "vb"),
                "thin": few,
                "n_chains": few,
                "init": choices_or_not("overdispersed", "kmeans", "random"),
                "init_components": number,
                "split_merge": st.one_of(st.just("auto"), st.sampled_from([0, 1, 0.5, -1, "x", None, float("nan")])),
                "search": real,
                "stop": choices_or_not("sweeps", "converged"),
                "max_sweeps": st.sampled_from([None, 8, 0, 2.5]),
                "max_rhat": real,
                "min_ess": real,
                "kappa0": real,
                "nu0": real,
                "variance_floor": real,
                "alpha_prior": st.one_of(st.tuples(real, real), real, st.just((1, 1, 1))),
                "alpha": real,
                "labels_init": st.one_of(st.none(), labels(45)),
                "resp_init": st.one_of(st.none(), arrays([(45, 4)]).map(lambda x: x.given)),
                "truncation": few,
                "max_iter": few,
                "tol": real,
                "random_state": number,
                "on_error": choices_or_not("raise", "skip"),
                "dtype": st.sampled_from([None, torch.float32, torch.float16, "float32"]),
            },
        )
    )
    batch = usual_batch(2)
    fit, warned = outcome(lambda: fd.DirichletProcessMixtures(progress=False, **options).fit(batch))
    if fit is not None:
        scores, _ = outcome(lambda: fit.score_samples(batch))
        assert_no_silent_nan((fit.alpha_, scores), warned, fit.failures_)


_FITS = {}


def fitted(which):
    """A fit of a usual batch, made once."""
    if which not in _FITS:
        batch = usual_batch(3)
        made = {
            "gm": lambda: fd.GaussianMixtures(2, max_iter=3, tol=0),
            "dp": lambda: fd.DirichletProcessMixtures(n_sweeps=8, burn_in=2, thin=2, n_chains=2, progress=False),
            "vb": lambda: fd.VariationalDirichletProcessMixtures(max_iter=2, truncation=3, tol=0),
        }[which]()
        _FITS[which] = outcome(lambda: made.fit(batch))[0]
    return _FITS[which]


@given(st.sampled_from(["gm", "dp", "vb"]), st.data())
def test_what_is_asked_of_a_fit(which, data):
    fit, number, real = fitted(which), integers_or_not(), floats_or_not()
    x = data.draw(arrays([(5, 2), (5, 2), (0, 2), (5, 3)])).given
    # Draws of any number are made, as long as that takes.
    n, other = data.draw(number.filter(lambda n: not isinstance(n, int) or n < 2**62)), data.draw(real)
    calls = {
        "sample": lambda: fit.density().sample(n),
        "log_prob": lambda: fit.log_prob(x),
        "score_samples": lambda: fit.score_samples(fd.RaggedBatch.from_list([x, x])),
        "score_other": lambda: fit.score_samples(x),
        "entropy": lambda: fit.density().entropy(n),
        "relative_entropy": lambda: fit.density().relative_entropy(usual_batch(4), n),
        "kl_matrix": lambda: fit.density().kl_matrix(n),
        "get_state": lambda: fit.get_state()[1],
    }
    if which == "gm":
        calls |= {
            "predict": lambda: fit.predict(fd.RaggedBatch.from_list([x, x])),
            "bic": lambda: fit.bic(usual_batch(4)),
            "sample": lambda: fit.sample(n),
        }
    if which == "dp":
        calls |= {
            "weighting": lambda: fit.log_prob(x, weighting=other),
            "average": lambda: fit.log_prob(x, average=other),
            "leave_one_out": lambda: fit.leave_one_out("exact", "log_density"),
            "partition": lambda: fit.partition(n),
            "loss": lambda: fit.partition(0, other),
            "co_clustering": lambda: fit.co_clustering(n),
            "number_of_clusters": lambda: fit.number_of_clusters(other),
            "held out": lambda: fit.fit(usual_batch(3), held_out=usual_batch(5, (2, 2), 2)),
        }
    outcome(calls[data.draw(st.sampled_from(sorted(calls)))])
