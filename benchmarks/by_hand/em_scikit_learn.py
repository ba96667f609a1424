"""EM by scikit-learn: python em_scikit_learn.py rows/em-full-paper-16 [models]."""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.mixture import GaussianMixture

folder = Path(sys.argv[1])
case = json.loads((folder / "case.json").read_text())
models = int(sys.argv[2]) if len(sys.argv) > 2 else case["n_models"]
points, weights, means, covariances = (
    np.load(folder / f"{name}.npy")[:models] for name in ("points", "weights", "means", "covariances")
)
# All components of a model start with one covariance, which rounding has left not quite symmetric.
covariance = (covariances[:, 0].astype(float) + covariances[:, 0].swapaxes(1, 2)) / 2
precisions = {
    "full": lambda c: np.broadcast_to(np.linalg.inv(c), (case["n_components"], *c.shape)),
    "tied": np.linalg.inv,
    "diag": lambda c: np.broadcast_to(1 / np.diag(c), (case["n_components"], len(c))),
    "spherical": lambda c: np.full(case["n_components"], 1 / np.diag(c).mean()),
}[case["variant"]]
mixtures = [
    GaussianMixture(
        case["n_components"],
        covariance_type=case["variant"],
        max_iter=case["n_iter"],
        tol=0,
        weights_init=weights[m],
        means_init=means[m],
        precisions_init=precisions(covariance[m]).astype(np.float32),
    )
    for m in range(models)
]
warnings.simplefilter("ignore")  # The iterations are few, and do not converge.
mixtures[0].fit(points[0])
begin = time.perf_counter()
for mixture, x in zip(mixtures, points, strict=True):
    mixture.fit(x)
seconds = time.perf_counter() - begin
print(f"{seconds * case['n_models'] / models:.3g} s for {case['n_models']} models, from {models}")
print(f"{np.mean([mixture.score(x) for mixture, x in zip(mixtures, points, strict=True)]):.5f}")
