"""EM by gmm-gpu, full covariances, all models at once: python em_gmm_gpu.py rows/em-full-paper-16 [models].

In 64 dimensions its densities are zero in float32, and it prints -inf: the benchmark scales the data there.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from gmm_gpu.gmm import GMM

folder = Path(sys.argv[1])
case = json.loads((folder / "case.json").read_text())
models = int(sys.argv[2]) if len(sys.argv) > 2 else case["n_models"]
points, weights, means, covariances = (
    torch.from_numpy(np.load(folder / f"{name}.npy")[:models]) for name in ("points", "weights", "means", "covariances")
)
precisions = torch.linalg.inv(covariances.double()).float()


def fit(max_iter):
    mixture = GMM(
        case["n_components"],
        max_iter=max_iter,
        device="cpu",
        tol=0,
        means_init=means.clone(),
        weights_init=weights.clone(),
        precisions_init=precisions,
    )
    begin = time.perf_counter()
    mixture.fit(points)
    return time.perf_counter() - begin, mixture


fit(1)
seconds, mixture = fit(case["n_iter"])
# Its k-means, which cannot be turned off.
seconds -= fit(0)[0]
print(f"{seconds * case['n_models'] / models:.3g} s for {case['n_models']} models, from {models}")
print(f"{float(mixture.score(points).mean()):.5f}")
