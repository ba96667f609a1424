"""The order in which a sweep updates the points: a fresh permutation every sweep, from the chain's random stream."""

from __future__ import annotations

import torch
from fastdens.kernels.counter_random_triton import hashed_bits, stream_of
from fastdens.kernels.layout import Layout
from fastdens.kernels.optional_triton import tl, triton
from torch import Tensor

BLOCK = 1024

# A sort takes so many numbers at most, or the orders of one sweep: what they need is three times eight bytes each.
MOST_SORTED = 1 << 25


@triton.jit(do_not_specialize=["first_sweep", "n_chains", "n_rows"])
def scan_keys_kernel(
    keys_ptr,  # int64 [M, C]
    model_ptr,  # int64 [N]
    position_ptr,  # int64 [N], of the row in its model
    out_ptr,  # int64 [W, C, N]
    first_sweep,
    n_chains,  # C
    n_rows,  # N
    BLOCK: tl.constexpr,
):
    """One program: a run of rows in one sweep of one chain; the model of each, then 40 random bits."""
    n_runs = tl.cdiv(n_rows, BLOCK)
    run, vector = tl.program_id(0) % n_runs, tl.program_id(0) // n_runs
    sweep, c = vector // n_chains, vector % n_chains
    rows = run * BLOCK + tl.arange(0, BLOCK)
    mask = rows < n_rows
    model = tl.load(model_ptr + rows, mask=mask, other=0)
    stream = stream_of(tl.load(keys_ptr + model * n_chains + c), 4 * (first_sweep + sweep))
    bits = hashed_bits(stream, tl.load(position_ptr + rows, mask=mask, other=0)) >> 13
    tl.store(out_ptr + vector.to(tl.int64) * n_rows + rows, (model << 40) | bits, mask=mask)


def scan_orders(layout: Layout, keys: Tensor, first_sweep: int, n_sweeps: int) -> Tensor:
    """Rows in the order of their updates, model after model: ascending 40 random bits.

    Parameters
    ----------
    layout : Layout
        Of M models, one after the other, that own all N rows.
    keys : Tensor
        int64 [M, C], the stream of each chain.
    first_sweep, n_sweeps : int
        Number of the first sweep in the streams, and of the sweeps W.

    Returns
    -------
    Tensor
        int32 [W, C, N].
    """
    n_chains, n_rows = keys.shape[1], layout.n_points
    order = torch.empty(n_sweeps, n_chains, n_rows, dtype=torch.int32, device=keys.device)
    at_once = max(1, MOST_SORTED // max(1, n_chains * n_rows))
    for first in range(0, n_sweeps, at_once):
        own = order[first : first + at_once]
        scan_keys = torch.empty(own.shape, dtype=torch.int64, device=keys.device)
        scan_keys_kernel[(triton.cdiv(n_rows, BLOCK) * len(own) * n_chains,)](
            keys, *layout.rows, scan_keys, first_sweep + first, n_chains, n_rows, BLOCK=BLOCK
        )
        own.copy_(scan_keys.argsort(stable=True))
    return order
