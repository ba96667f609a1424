"""EM by tgmm: python em_tgmm.py rows/em-full-paper-16 [models]."""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from tgmm import GaussianMixture

folder = Path(sys.argv[1])
case = json.loads((folder / "case.json").read_text())
models = int(sys.argv[2]) if len(sys.argv) > 2 else case["n_models"]
points, weights, means, covariances = (
    torch.from_numpy(np.load(folder / f"{name}.npy")[:models]) for name in ("points", "weights", "means", "covariances")
)
start = {
    "full": covariances,
    "tied": covariances[:, 0],
    "diag": covariances.diagonal(dim1=2, dim2=3),
    "spherical": covariances.diagonal(dim1=2, dim2=3).mean(2),
}[case["variant"]]
warnings.simplefilter("ignore")  # The iterations are few, and do not converge.


def fit(m):
    return GaussianMixture(
        n_components=case["n_components"],
        covariance_type=case["variant"],
        max_iter=case["n_iter"],
        tol=1e-300,  # It takes no zero.
        init_weights=weights[m],
        init_means=means[m],
        init_covariances=start[m],
        device="cpu",
    ).fit(points[m])


fit(0)
begin = time.perf_counter()
mixtures = [fit(m) for m in range(models)]
seconds = time.perf_counter() - begin
print(f"{seconds * case['n_models'] / models:.3g} s for {case['n_models']} models, from {models}")
print(f"{np.mean([float(mixture.score(x)) for mixture, x in zip(mixtures, points, strict=True)]):.5f}")
