"""EM by fastdens, to compare: python em_fastdens.py rows/em-full-paper-16 [models]."""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import fastdens as fd

folder = Path(sys.argv[1])
case = json.loads((folder / "case.json").read_text())
models = int(sys.argv[2]) if len(sys.argv) > 2 else case["n_models"]
points, weights, means, covariances = (
    np.load(folder / f"{name}.npy")[:models] for name in ("points", "weights", "means", "covariances")
)
# All components of a model start with one covariance.
covariance, shape = covariances[:, 0].astype(float), means.shape
variances = np.diagonal(covariance, axis1=1, axis2=2)
precisions = {
    "full": lambda: np.broadcast_to(np.linalg.inv(covariance)[:, None], covariances.shape),
    "tied": lambda: np.linalg.inv(covariance),
    "diag": lambda: np.broadcast_to(1 / variances[:, None], shape),
    "spherical": lambda: np.broadcast_to(1 / variances.mean(1)[:, None], shape[:2]),
}[case["variant"]]()
batch = fd.RaggedBatch.from_list(list(points))
mixtures = fd.GaussianMixtures(
    case["n_components"],
    covariance_type=case["variant"],
    max_iter=case["n_iter"],
    tol=0,
    weights_init=weights,
    means_init=means,
    precisions_init=precisions.astype(np.float32),
)
warnings.simplefilter("ignore")  # The iterations are few, and do not converge.
mixtures.fit(batch)
begin = time.perf_counter()
mixtures.fit(batch)
seconds = time.perf_counter() - begin
print(f"{seconds * case['n_models'] / models:.3g} s for {case['n_models']} models, from {models}")
print(f"{float(mixtures.score_samples(batch).double().mean()):.5f}")
