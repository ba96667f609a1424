"""Costs of models, their division over ranks, and the plan of a fit."""

from __future__ import annotations

import itertools

import pytest
import torch

import fastdens as fd
from fastdens.distributed.costs import assign, cut, operations

CPU = torch.device("cpu")


@pytest.mark.parametrize("n_ranks", [1, 2, 7])
def test_parts_hold_every_model_once_and_ranks_have_about_the_same(n_ranks):
    costs = torch.rand(400, dtype=torch.float64) + 0.5
    parts = cut(costs, n_ranks, CPU)
    assert list(itertools.chain(*parts)) == list(range(400))
    of_parts = [float(costs[part].sum()) for part in parts]
    ranks = assign(of_parts, n_ranks)
    assert sorted(itertools.chain(*ranks)) == list(range(len(parts)))
    loads = [sum(of_parts[part] for part in own) for own in ranks]
    # Graham's bound for the longest first.
    assert max(loads) <= sum(loads) / n_ranks + max(of_parts)
    assert max(loads) < 1.15 * sum(loads) / n_ranks


def test_a_model_that_costs_more_than_all_others_has_a_rank_of_its_own():
    costs = [1.0, 1.0, 9.0, 1.0]
    assert [2] in assign(costs, 3)


def test_costs_grow_as_the_work_does():
    sizes = torch.tensor([100, 200])
    for estimator in (fd.GaussianMixtures(3), fd.DirichletProcessMixtures(), fd.VariationalDirichletProcessMixtures()):
        few, many = operations(estimator, sizes, 8).tolist()
        assert 1 < many / few <= 2
        assert operations(estimator, sizes, 16)[0] > 3 * few


def test_plan_of_many_ranks():
    batch = fd.RaggedBatch.from_labels(torch.randn(600, 3), torch.arange(600) % 12)
    estimator = fd.GaussianMixtures(2, max_iter=4, tol=0)
    plan = fd.distributed.plan(estimator, batch, 4, bandwidth=1e6, latency=0.01)
    assert not hasattr(estimator, "means_")
    tensors, _ = estimator.fit(batch).get_state()
    assert plan.result_bytes == sum(tensor.nbytes for tensor in tensors.values())
    assert plan.sent_bytes == plan.result_bytes * 3 // 4
    assert plan.exchange_seconds == pytest.approx(plan.sent_bytes / 1e6 + 9 * 0.01)
    assert plan.fit_seconds == pytest.approx(plan.one_process_seconds / 4)
    assert "4 ranks, 12 parts" in str(plan)
    with pytest.raises(ValueError, match="bandwidth is 0"):
        fd.distributed.plan(estimator, batch, 4, bandwidth=0)
