"""The matrices that a fit holds at a time: 100 models of 6 components in 2,048 dimensions fit on a GPU of 80 GB.

One [M, K, D, D] of those is 10 GB in float32 and 20 GB in float64, to which the working memory of the factorisation
adds 4 GB at most.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from fastdens.kernels import cholesky
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fastdens as fd
from tests.problems import GPU, INTERPRETER

M, K, D = 2, 2, 16


class LargeStorages(TorchDispatchMode):
    """Counts the bytes of the memory, made while this is on, of tensors of at least ``least`` bytes."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.peak = least, 0
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        # Memory that comes from elsewhere: tools that run the kernels on a CPU hand them copies of what is there.
        if function is torch.ops.aten.lift_fresh.default:
            return result
        storages = [leaf.untyped_storage() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        for storage in storages:
            known = self.alive.get(storage._cdata)
            if storage.nbytes() >= self.least and (known is None or known[0].expired()):
                # The interpreter's launches leave cycles behind, which hold their arguments.
                gc.collect()
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                self.alive = {key: value for key, value in self.alive.items() if not value[0].expired()}
                self.peak = max(self.peak, sum(n_bytes for _, n_bytes in self.alive.values()))
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("backend", "device"), [INTERPRETER, GPU])
def test_a_fit_holds_three_sets_of_matrices_and_a_score_one_more(rng, monkeypatch, backend, device, dtype):
    monkeypatch.setattr(cholesky, "_MAX_WORK_BYTES", 0)
    points = torch.from_numpy(rng.normal(size=(6 * M, D))).to(device, dtype)
    batch = fd.RaggedBatch.from_labels(points, torch.arange(6 * M, device=device) % M)
    matrices = M * K * D * D * points.element_size()
    with LargeStorages(matrices // 2) as fit:
        mixtures = fd.GaussianMixtures(n_components=K, max_iter=1, tol=0, backend=backend).fit(batch)
    assert 2 * matrices <= fit.peak <= 3 * matrices
    # The mixtures themselves hold covariances and factors.
    with LargeStorages(matrices // 2) as score:
        mixtures.density().log_prob(points)
        mixtures.score_samples(batch)
    assert score.peak <= matrices
