"""Densities by torch.distributions: python log_prob_torch.py rows/log_prob-paper-64 [models]."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

folder = Path(sys.argv[1])
case = json.loads((folder / "case.json").read_text())
models = int(sys.argv[2]) if len(sys.argv) > 2 else case["n_models"]
weights, means, covariances = (
    torch.from_numpy(np.load(folder / f"{name}.npy")[:models]) for name in ("weights", "means", "covariances")
)
queries = torch.from_numpy(np.load(folder / "queries.npy"))
mixtures = [
    MixtureSameFamily(Categorical(weights[m]), MultivariateNormal(means[m], covariances[m])) for m in range(models)
]
mixtures[0].log_prob(queries)
begin = time.perf_counter()
columns = [mixture.log_prob(queries) for mixture in mixtures]
seconds = time.perf_counter() - begin
print(f"{seconds * case['n_models'] / models:.3g} s for {case['n_models']} models, from {models}")
print(f"{float(torch.stack(columns).double().mean()):.5f}")
