"""Models whose points are divided over ranks: the same bits for every number of ranks, nearly those of one process."""

from __future__ import annotations

import pytest
import torch

from fastdens.io.state_file import read_state
from tests.ranks import run_jobs

RANKS = (1, 2, 3, 4)
FITS = ("full", "tied", "diag", "spherical", "variational", "given", "kmeans", "weighted", "weighted variational")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def seen(folder):
    return run_jobs("tests.distributed.checks", folder, {str(n): (n, ["points", 3, str(folder)]) for n in RANKS})


def saved(folder, name, what):
    return read_state(folder / f"{name}-{what}.safetensors", "fit")


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("n_ranks", RANKS[1:])
def test_same_bits_for_every_number_of_ranks(seen, folder, name, n_ranks):
    one, many = saved(folder, name, 1), saved(folder, name, n_ranks)
    assert one.metadata == many.metadata
    assert one.tensors.keys() == many.tensors.keys()
    for key, value in one.tensors.items():
        assert torch.equal(value, many.tensors[key]), key


@pytest.mark.parametrize("name", FITS)
def test_agrees_with_the_estimator_by_itself(seen, folder, name):
    split, whole = saved(folder, name, 1), saved(folder, name, "whole")
    assert split.metadata == whole.metadata
    for key, value in whole.tensors.items():
        torch.testing.assert_close(split.tensors[key], value, rtol=1e-10, atol=1e-10, msg=key)


def test_errors_on_every_rank(seen):
    for n in RANKS:
        for rank, result in enumerate(seen[str(n)]):
            assert result["bad"] == result["bad, alone"]
            assert "lost a positive definite covariance" in result["bad"]
            assert result["gibbs"].startswith("TypeError: split is 'points', which DirichletProcessMixtures cannot do")
            assert result["goes on"] == (rank == 0)
