"""Sweeps of the sampler to be timed: Gaussian clusters, and chains of all their models that go on from call to call."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from fastdens.kernels.gibbs import GibbsSweeps
from fastdens.kernels.layout import Layout
from torch import Tensor

import fastdens as fd
from fastdens import kernels
from fastdens.distributions.niw import data_prior
from fastdens.inference.gibbs import stream_keys
from fastdens.inference.starts import random_labels

PAPER_STAGES, PAPER_SWEEPS = (16, 16, 64, 64), 400
CLUSTERS = 6
# As many as the estimator makes.
SWEEPS_A_LAUNCH = 32


class Problem(NamedTuple):
    """Points [M * N, D] of M models, sorted, and the cluster that each was drawn from, [1, M * N]."""

    points: Tensor
    labels: Tensor
    n_models: int

    @property
    def offsets(self) -> Tensor:
        """Rows of the models, int64 [M + 1]."""
        return torch.arange(self.n_models + 1, device=self.points.device) * (len(self.points) // self.n_models)

    @property
    def batch(self) -> fd.RaggedBatch:
        """The points as an estimator takes them."""
        return fd.RaggedBatch.from_list(list(self.points.reshape(self.n_models, -1, self.points.shape[1])))


def gaussian_clusters(
    n_models: int, n_points: int, d: int, separation: float, seed: int, device: str = "cpu"
) -> Problem:
    """Six unit Gaussians a model, whose centres are normal with the given deviation in each dimension."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(n_models, CLUSTERS, d, generator=generator) * separation
    label = torch.randint(0, CLUSTERS, (n_models, n_points), generator=generator)
    points = torch.randn(n_models, n_points, d, generator=generator) + centres[torch.arange(n_models)[:, None], label]
    return Problem(points.reshape(-1, d).to(device), label.reshape(1, -1).to(device), n_models)


def sweeper(problem: Problem, labels: Tensor | None = None, backend: str = "auto") -> Callable[..., GibbsSweeps]:
    """A function that goes on by some sweeps of every model, from the given labels or from random ones."""
    layout = Layout.from_offsets(problem.offsets, len(problem.points))
    prior = data_prior(problem.points, layout, init_components=CLUSTERS)
    keys = stream_keys(problem.points, layout, 1, 0)
    labels = random_labels(keys, layout, CLUSTERS) if labels is None else labels
    state = {"labels": labels, "alpha": torch.ones(keys.shape, dtype=torch.float64, device=labels.device), "sweep": 1}

    def go_on(n_sweeps: int, thin: int | None = None) -> GibbsSweeps:
        done = kernels.gibbs_sweep(
            problem.points,
            layout,
            state["labels"],
            state["alpha"],
            keys,
            prior.mean,
            prior.scale_diagonal,
            kappa0=prior.kappa,
            nu0=prior.nu,
            first_sweep=state["sweep"],
            n_sweeps=n_sweeps,
            thin=thin or n_sweeps,
            backend=backend,
        )
        state.update(labels=done.labels[-1], alpha=done.alpha[..., -1], sweep=state["sweep"] + n_sweeps)
        return done

    return go_on
