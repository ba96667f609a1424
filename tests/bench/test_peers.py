"""Other libraries in the benchmark do the same as fastdens, from the same start."""

from __future__ import annotations

import dataclasses
import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from fastdens.bench.cases import Case, Parameters, Peer, Problem
from fastdens.bench.ours import OURS
from fastdens.bench.outcomes import inertia, log_density, mean_log_likelihood
from fastdens.bench.parameters import parameters_of
from fastdens.bench.peers import PEERS
from fastdens.bench.peers.global_generators import seeded
from fastdens.bench.peers.scikit_learn import PEER as SCIKIT_LEARN

pytestmark = pytest.mark.filterwarnings("ignore:.*did not converge")

ROOT = Path(__file__).parents[2]
COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
SHAPES = [(3, 300, 4, 3), (1, 200, 1, 1), (2, 150, 1, 2), (1, 100, 5, 1)]
# What a library refuses of these shapes, though not of others.
REFUSED = {
    ("torchgmm", "em", "full", 1, 1),
    ("torchgmm", "em", "tied", 1, 1),
    ("torchgmm", "em", "tied", 1, 2),
    ("pomegranate", "start", "kmeans", 1, 1),
    ("pomegranate", "start", "kmeans", 5, 1),
}


def case_of(operation: str, variant: str, shape: tuple[int, int, int, int], seed: int, n_iter: int = 3) -> Case:
    """M models of N points in D dimensions about K centres well apart, and a start near the truth."""
    m, n, d, k = shape
    generator = torch.Generator().manual_seed(seed)
    centres = 8 * torch.arange(k)[None, :, None] + torch.randn(m, k, d, generator=generator)
    labels = (torch.arange(n) % k).expand(m, n)
    points = centres.gather(1, labels[:, :, None].expand(m, n, d)) + torch.randn(m, n, d, generator=generator)
    # As every fit begins: with one covariance for all components.
    factor = (torch.eye(d) + 0.2 * torch.randn(m, 1, d, d, generator=generator).tril(-1)).expand(m, k, d, d)
    weights = torch.rand(m, k, generator=generator) + 0.5
    start = Parameters(weights / weights.sum(1, keepdim=True), centres + 0.3, factor @ factor.mT)
    queries = points[:, :20].flatten(0, 1) + 0.1
    return Case(operation, variant, Problem("tried", m, n, d, k), points, n_iter, start, queries, labels)


def in_float64(case: Case) -> Case:
    """The same numbers; scikit-learn computes in float64 then."""
    start = Parameters(*(part.double() for part in case.start))
    start = start._replace(weights=start.weights / start.weights.sum(1, keepdim=True))
    return dataclasses.replace(case, points=case.points.double(), start=start, queries=case.queries.double())


def outcome(peer: Peer, case: Case) -> torch.Tensor:
    """Of a second call, which must start where the first one did."""
    run = peer.operations[case.operation](case)
    run.work()
    if run.before is not None:
        run.before()
    found = run.outcome(run.work())
    assert found.dtype == torch.float64
    return found


def having(*operations: str):
    """A parameter for each library with one of the operations; those that are not installed are skipped."""
    return pytest.mark.parametrize(
        "peer",
        [
            pytest.param(
                peer,
                id=peer.name,
                marks=pytest.mark.skipif(importlib.util.find_spec(peer.module) is None, reason=f"no {peer.name}"),
            )
            for peer in (OURS, *PEERS)
            if set(operations) & set(peer.operations)
        ],
    )


def skip_absent(peer: Peer, case: Case) -> None:
    """Leave out what the library has not, or refuses."""
    if not peer.has(case.operation, case.variant):
        pytest.skip("it has no such variant")
    if (peer.name, case.operation, case.variant, *case.problem[3:]) in REFUSED:
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            outcome(peer, case)
        pytest.skip("it refuses this shape")


@having("em")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_iterations_of_em_are_scikit_learns_in_float64(peer, covariance_type, shape, seed):
    case = case_of("em", covariance_type, shape, seed)
    skip_absent(peer, case)
    torch.testing.assert_close(outcome(peer, case), outcome(SCIKIT_LEARN, in_float64(case)), rtol=1e-4, atol=1e-4)


def test_iterations_move_the_start(seed):
    case = case_of("em", "full", SHAPES[0], seed, n_iter=1)
    before = mean_log_likelihood(case.points, parameters_of(case.start, "full"))
    assert bool((outcome(SCIKIT_LEARN, case) - before).min() > 1e-3)


@having("log_prob")
@pytest.mark.parametrize("shape", SHAPES)
def test_densities_are_those_of_the_formula(peer, shape, seed):
    case = case_of("log_prob", "", shape, seed)
    # Queries so near that no density is zero in float32.
    case = dataclasses.replace(case, queries=case.points[0, :1] + 0.1, start=Parameters(*(p[:1] for p in case.start)))
    case = dataclasses.replace(case, points=case.points[:1], problem=case.problem._replace(n_models=1))
    expected = log_density(case.queries[None], parameters_of(case.start, "full")).T
    torch.testing.assert_close(outcome(peer, case), expected, rtol=1e-4, atol=1e-4)


@having("variational")
@pytest.mark.parametrize("shape", SHAPES)
def test_variational_fits_agree(peer, shape, seed):
    case = case_of("variational", "", shape, seed)
    torch.testing.assert_close(outcome(peer, case), outcome(SCIKIT_LEARN, in_float64(case)), rtol=1e-4, atol=1e-4)


@having("start")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", ["kmeans++", "kmeans"])
def test_starts_are_no_worse_than_points_and_no_better_than_clusters(peer, variant, shape, seed):
    case = case_of("start", variant, shape, seed, n_iter=10)
    skip_absent(peer, case)
    found = outcome(peer, case)
    one_centre = inertia(case.points, case.points.mean(1, keepdim=True))
    cluster = torch.stack([case.points[:, case.labels[0] == k].mean(1) for k in range(shape[3])], 1)
    assert bool((found >= 0.7 * inertia(case.points, cluster)).all())
    # From one point of the data in place of the mean, the squared distances about double, or more for an outlying one.
    assert bool((found <= 20 * one_centre).all())


@having("kl")
@pytest.mark.parametrize("shape", SHAPES)
def test_divergences_agree(peer, shape, seed):
    case = case_of("kl", "", shape, seed, n_iter=4000)
    # Neighbours of one model are near, so that few draws tell how far.
    mean = case.start.means[:1] + 0.2 * torch.arange(shape[0])[:, None, None]
    case = dataclasses.replace(
        case, start=Parameters(*(p[:1].expand_as(p).contiguous() for p in case.start))._replace(means=mean)
    )
    expected = outcome(SCIKIT_LEARN, dataclasses.replace(case, n_iter=40_000))
    torch.testing.assert_close(outcome(peer, case), expected, rtol=0.25, atol=0.1)


@having("neighbours")
@pytest.mark.parametrize("shape", SHAPES)
def test_neighbours_are_the_nearest(peer, shape, seed):
    case = case_of("neighbours", "", shape, seed, n_iter=5)
    distances = torch.cdist(case.queries.double(), case.points.flatten(0, 1).double())
    torch.testing.assert_close(outcome(peer, case), distances.kthvalue(5, 1).values, rtol=1e-3, atol=2e-3)


@having("scores")
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_distances_under_the_covariance_of_all_classes(peer, shape, seed):
    case = case_of("scores", "", shape, seed)
    means = case.points.double().mean(1)
    centred = (case.points.double() - means[:, None]).flatten(0, 1)
    inverse = torch.linalg.inv(centred.T @ centred / len(centred))
    away = case.queries.double()[:, None] - means
    expected = torch.einsum("qmd,de,qme->qm", away, inverse, away).amin(1)
    torch.testing.assert_close(outcome(peer, case), expected, rtol=1e-3, atol=1e-3)


@having("gibbs")
def test_sweeps_keep_clusters_that_are_apart(peer, seed):
    case = case_of("gibbs", "", (2, 60, 3, 2), seed, n_iter=4)
    assert bool((outcome(peer, case) - 2).abs().max() < 2)


def test_the_outcome_of_em_is_the_mean_of_log_densities(seed):
    case = case_of("em", "tied", SHAPES[0], seed)
    for covariance_type in COVARIANCE_TYPES:
        parameters = parameters_of(case.start, covariance_type)
        densities = 0
        for k, weight in enumerate(case.start.weights[1].double().numpy()):
            of = {"full": (1, k), "diag": (1, k), "tied": (1,), "spherical": (1, k)}[covariance_type]
            covariance = parameters.covariances[of].double().numpy()
            covariance = covariance if covariance.ndim == 2 else np.diag(np.broadcast_to(covariance, 4))
            density = multivariate_normal(case.start.means[1, k].double().numpy(), covariance)
            densities = densities + weight * density.pdf(case.points[1].double().numpy())
        assert float(mean_log_likelihood(case.points, parameters)[1]) == pytest.approx(
            np.log(densities).mean(), rel=1e-6
        )


def test_generators_go_on_as_if_nothing_had_been_drawn():
    def draws():
        return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002

    with seeded(3):
        first = draws()
        with seeded(3):
            assert draws() == first
        second = draws()
    with seeded(3):
        assert (draws(), draws()) == (first, second)


def test_libraries_are_pinned_and_described():
    pinned = [
        line
        for name in ("requirements-peers.txt", "requirements-peers-alone.txt")
        for line in (ROOT / "benchmarks" / name).read_text().splitlines()
        if not line.startswith("#")
    ]
    assert sorted(pinned) == sorted(peer.distribution for peer in PEERS if peer.module != "torch")
    for peer in PEERS:
        assert peer.beyond.count(". ") >= 1 and peer.beyond.endswith("."), peer.name
