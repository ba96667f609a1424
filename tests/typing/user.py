"""A program of a user's, for type checkers: ``make typecheck`` asks mypy and pyright what they see of the library.

It is read, not run. ``assert_type`` fails where a name is unknown to a checker (``Any``) or has another type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

import numpy as np
import torch
from torch import Tensor, nn

import fastdens as fd
from fastdens import analysis, kernels
from fastdens.analysis.modes import Modes
from fastdens.pipeline import Analysis, AnalysisData, AnalysisOptions, analyze

x, y = torch.randn(60, 4), torch.arange(60) % 3

# Batches.
batch = fd.RaggedBatch.from_labels(x, y)
assert_type(batch, fd.RaggedBatch)
assert_type(batch.points, Tensor)
assert_type(fd.RaggedBatch.from_list([np.zeros((9, 4))]), fd.RaggedBatch)
assert_type(batch.n_models, int)

# Gaussian mixtures.
gm = fd.GaussianMixtures(n_components=2, covariance_type="full").fit(batch)
assert_type(gm, fd.GaussianMixtures)
assert_type(gm.means_, Tensor)
assert_type(gm.score_samples(batch), Tensor)
assert_type(gm.log_prob(x), Tensor)
assert_type(gm.sample(3), tuple[Tensor, Tensor])
assert_type(gm.density(), fd.GaussianMixtureDensity)
assert_type(fd.select_components(batch, range(1, 4)), fd.ComponentChoice)
assert_type(fd.FactorAnalyserMixtures(2, n_factors=1).fit(batch), fd.FactorAnalyserMixtures)

# Densities.
density = gm.density()
assert_type(density.log_prob(x), Tensor)
assert_type(density.entropy(), fd.MonteCarloEstimate)
assert_type(density.kl_matrix().value, Tensor)

# Dirichlet-process mixtures.
dp = fd.DirichletProcessMixtures(n_sweeps=40, burn_in=20, progress=False).fit(batch)
assert_type(dp, fd.DirichletProcessMixtures)
assert_type(dp.n_components_, Tensor)
assert_type(dp.rhat_, Tensor)
assert_type(dp.convergence_.summary(["a", "b", "c"]), str)
assert_type(dp.density(), fd.StudentTMixtureDensity)
assert_type(dp.draw_densities(), Iterator[fd.StudentTMixtureDensity])
assert_type(fd.VariationalDirichletProcessMixtures().fit(batch), fd.VariationalDirichletProcessMixtures)

# Failures.
try:
    fd.GaussianMixtures(2).log_prob(x)
except fd.NotFittedError as error:
    assert_type(error, fd.NotFittedError)

# Activations, projections, detectors, heads.
network = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
kept = fd.activations.extract(network, [x], ["0"])
assert_type(kept, fd.activations.Activations)
svd = fd.reduction.UncentredSVD(2)
assert_type(svd.fit(x), fd.reduction.UncentredSVD)
assert_type(svd.transform(x), Tensor)
detector = fd.ood.Mahalanobis()
assert_type(detector.fit(x, y), fd.ood.Mahalanobis)
assert_type(detector.score(x), Tensor)
head = fd.nn.DensityHead(4, 3)
assert_type(head.partial_fit(x, y), fd.nn.DensityHead)

# Operations on tensors: their signatures survive their decorators.
assert_type(fd.kernels.gaussian_log_prob(x, x[:2], torch.ones(2), covariance_type="spherical"), Tensor)
assert_type(kernels.kmeans_plusplus(x, torch.tensor([0, 60]), 2, 0), Tensor)
assert_type(kernels.precision_cholesky(torch.eye(4)[None, None]), tuple[Tensor, Tensor])

# The analysis.
modes = analysis.find_modes(torch.arange(30.0).numpy())
assert_type(modes, Modes)
data = AnalysisData.from_activations({"layer1": x.numpy()}, labels=y.numpy())
assert_type(analyze(data, AnalysisOptions(density="gmm")), Analysis)

# A misspelt name is an error: these comments would be errors themselves if it were none.
fd.GaussianMixture(2)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
fd.GaussianMixtures(n_component=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
misspelt = fd.kernels.gausian_log_prob  # type: ignore[attr-defined]  # pyright: ignore
fd.kernels.gaussian_log_prob(x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
