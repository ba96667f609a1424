"""Random problems for the sampler, and starts of their chains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastdens.kernels import gibbs_sweep
from fastdens.kernels.cpu._random import stream_of

from tests.kernels.gibbs.posterior import KAPPA0, NU0_OVER_D, Data

CPU = pytest.param("cpu", "cpu", id="cpu")
INTERPRETER = pytest.param("triton", "cpu", id="triton-interpreter")
GPU = pytest.param("triton", "cuda", id="triton-gpu", marks=pytest.mark.gpu)


def stream(key, draw):
    return np.uint64(stream_of(key, draw))


def clustered(rng, sizes, d, scale=1.0, separation=3.0):
    """Models of three clusters; prior scales as a data prior would have them, times ``scale``."""
    x = rng.normal(size=(sum(sizes), d)) + separation * rng.integers(0, 3, size=(sum(sizes), 1))
    means, scales = [], []
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        means.append(part.mean(0))
        scales.append(np.maximum(part.var(0), 0.1) * scale)
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    return Data(torch.from_numpy(x), offsets, torch.from_numpy(np.stack(means)), torch.from_numpy(np.stack(scales)))


def chain_start(rng, data, n_chains, n_labels, alpha=None):
    n_models = len(data.prior_mean)
    labels = torch.from_numpy(rng.integers(0, n_labels, size=(n_chains, len(data.points)))).int()
    start = torch.from_numpy(rng.uniform(0.5, 1.5, size=(n_models, n_chains)))
    keys = torch.from_numpy(rng.integers(0, 2**62, size=(n_models, n_chains)))
    return labels, start if alpha is None else torch.full_like(start, alpha), keys


def run(data, labels, alpha, keys, backend, device="cpu", kappa0=KAPPA0, **options):
    d = data.points.shape[1]
    tensors = [t.to(device) for t in (data.points, data.offsets, labels, alpha, keys, *data[2:])]
    return gibbs_sweep(*tensors, kappa0=kappa0, nu0=d - 1 + NU0_OVER_D, backend=backend, **options)


def planted(rng, n_models, n, d, n_clusters, separation):
    """Models of clusters with random covariances and priors as a data prior has them, and their labels [1, N]."""
    means = rng.normal(size=(n_models, n_clusters, d)) * separation
    labels = np.stack([rng.permutation(np.arange(n) % n_clusters) for _ in range(n_models)])
    root = rng.normal(size=(n_models, n_clusters, d, 2 * d)) / (2 * d) ** 0.5
    model = np.arange(n_models)[:, None]
    x = means[model, labels] + np.einsum("mnde,mne->mnd", root[model, labels], rng.normal(size=(n_models, n, 2 * d)))
    prior = (x.mean(1), x.var(1) / n_clusters ** (2 / d))
    points, labels = x.reshape(-1, d), labels.reshape(1, -1)
    data = Data(torch.from_numpy(points), torch.arange(n_models + 1) * n, *map(torch.from_numpy, prior))
    return data, torch.from_numpy(labels)


def liveliest_chain(rng, data, n_labels, n_chains=200, **options):
    """The start of one chain out of many, in which splits and merges succeed if that happens in any of them."""
    labels, alpha, keys = chain_start(rng, data, n_chains, n_labels)
    accepted = run(data, labels, alpha, keys, "cpu", **options).split_merge.sum(0)[:, [1, 3]]
    c = int((1000 * accepted.min(1).values + accepted.sum(1)).argmax())
    return labels[c : c + 1], alpha[:, c : c + 1], keys[:, c : c + 1]
