"""Single-site updates at an inverse temperature below one."""

from __future__ import annotations

import math

import pytest
import torch

from tests.kernels.gibbs.chains import CPU, GPU, chain_start, clustered, run
from tests.kernels.gibbs.posterior import CERTAIN, chi_square_pvalue, exact_posterior


@pytest.mark.parametrize(("n", "d"), [(7, 2), (6, 5)])
@pytest.mark.parametrize("beta", [0.15, 0.6])
@pytest.mark.parametrize(("backend", "device"), [CPU, GPU])
@pytest.mark.unsanitized
def test_every_partition_as_often_as_its_tempered_probability(rng, backend, device, beta, n, d):
    data = clustered(rng, [n], d, separation=1.0)
    start = chain_start(rng, data, 10_000, 3, 0.7)
    options = {"n_sweeps": 40, "thin": 40, "alpha_prior": None, "inverse_temperature": beta}
    labels = run(data, *start, backend, device, **options).labels[-1].cpu().numpy()
    assert chi_square_pvalue(labels, *exact_posterior(data, 0.7, beta=beta)) > CERTAIN
    assert chi_square_pvalue(labels, *exact_posterior(data, 0.7, beta=beta + 0.3)) < CERTAIN


def test_one_for_all_sweeps_is_one_for_each(rng):
    data = clustered(rng, [9, 1, 20], 2)
    start = chain_start(rng, data, 2, 3)
    for beta in (1.0, 0.4):
        each = torch.full((3,), beta, dtype=torch.float64)
        for a, b in zip(
            *(run(data, *start, "cpu", n_sweeps=3, inverse_temperature=t) for t in (beta, each)), strict=True
        ):
            assert torch.equal(a, b)
    plain, tempered = (
        run(data, *start, "cpu", n_sweeps=3),
        run(data, *start, "cpu", n_sweeps=3, inverse_temperature=1.0),
    )
    assert torch.equal(plain.labels, tempered.labels) and torch.equal(plain.log_joint, tempered.log_joint)


@pytest.mark.parametrize("beta", [0.0, -0.5, 1.0 + 1e-9, math.nan, math.inf])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_temperatures_out_of_range_are_errors(rng, backend, beta):
    data = clustered(rng, [8, 5], 2)
    start = chain_start(rng, data, 1, 3)
    each = torch.tensor([1.0, beta], dtype=torch.float64)
    for value in (beta, each):
        with pytest.raises(ValueError, match=r"inverse_temperature (must be over 0 and at most 1|is nan, but)"):
            run(data, *start, backend, n_sweeps=2, inverse_temperature=value)


def test_temperatures_of_the_wrong_shape_are_errors(rng):
    data = clustered(rng, [8, 5], 2)
    start = chain_start(rng, data, 1, 3)
    for shape in ((1,), (3,), (2, 1)):
        with pytest.raises(ValueError, match="inverse_temperature has shape"):
            run(data, *start, "cpu", n_sweeps=2, inverse_temperature=torch.ones(shape, dtype=torch.float64))
