"""The random numbers of :mod:`fastdens.kernels.counter_random` inside Triton kernels."""

from __future__ import annotations

from fastdens.kernels.optional import tl, triton


@triton.jit
def stream_of(key, draw):
    """What (key, draw) contributes to the hash: computed once for all counters."""
    z = key + 0x1E3779B97F4A7C15
    for _ in tl.static_range(2):
        z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
        z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
        z = (z ^ ((z >> 31) & 0x1FFFFFFFF)) + draw
    return z - draw


@triton.jit
def uniform(stream, counter):
    """Uniform numbers in (0, 1), float64, of int64 counters."""
    z = counter * -0x61C8864680B583EB + stream
    for _ in tl.static_range(2):
        z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
        z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
        z = (z ^ ((z >> 31) & 0x1FFFFFFFF)) + stream
    return ((((z - stream) >> 11) & 0x1FFFFFFFFFFFFF).to(tl.float64) + 0.5) / 9007199254740992.0
