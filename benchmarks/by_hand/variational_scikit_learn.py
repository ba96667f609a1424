"""Variational inference by scikit-learn: python variational_scikit_learn.py rows/variational-paper-16 [models]."""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.mixture import BayesianGaussianMixture

folder = Path(sys.argv[1])
case = json.loads((folder / "case.json").read_text())
models = int(sys.argv[2]) if len(sys.argv) > 2 else case["n_models"]
points, labels = (np.load(folder / f"{name}.npy")[:models] for name in ("points", "labels"))
k, d = case["n_components"], case["n_features"]


class FromLabels(BayesianGaussianMixture):
    """Begins with given responsibilities, for which there is no option."""

    def _initialize_parameters(self, X, *_, **__):
        self._initialize(X, self.responsibilities)


def mixture_of(x, own):
    mixture = FromLabels(
        n_components=k,
        weight_concentration_prior=1.0,
        mean_precision_prior=0.01,
        mean_prior=x.mean(0),
        degrees_of_freedom_prior=d + 2,
        covariance_prior=np.diag(x.var(0) / k ** (2 / d)),
        reg_covar=0,
        tol=0,
        max_iter=case["n_iter"],
    )
    mixture.responsibilities = np.eye(k, dtype=np.float32)[own]
    return mixture


def score(mixture, x):
    parts = zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True)
    return logsumexp([np.log(w) + multivariate_normal(m, c).logpdf(x) for w, m, c in parts], axis=0).mean()


warnings.simplefilter("ignore")  # The iterations are few, and do not converge.
mixtures = [mixture_of(x, own) for x, own in zip(points, labels, strict=True)]
mixtures[0].fit(points[0])
begin = time.perf_counter()
for mixture, x in zip(mixtures, points, strict=True):
    mixture.fit(x)
seconds = time.perf_counter() - begin
print(f"{seconds * case['n_models'] / models:.3g} s for {case['n_models']} models, from {models}")
print(f"{np.mean([score(mixture, x) for mixture, x in zip(mixtures, points, strict=True)]):.5f}")
