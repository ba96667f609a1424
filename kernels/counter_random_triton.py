"""The random numbers of :mod:`fastdens.kernels.counter_random` inside Triton kernels."""

from __future__ import annotations

from fastdens.kernels import counter_random
from fastdens.kernels.optional_triton import tl, triton

_MULTIPLIER_1 = tl.constexpr(counter_random.as_int64(counter_random.MULTIPLIER_1))
_MULTIPLIER_2 = tl.constexpr(counter_random.as_int64(counter_random.MULTIPLIER_2))
_GOLDEN_RATIO = tl.constexpr(counter_random.as_int64(counter_random.GOLDEN_RATIO))
_KEY_INCREMENT = tl.constexpr(counter_random.KEY_INCREMENT)


@triton.jit
def mix(z):
    """SplitMix64's finaliser of int64, whose arithmetic wraps as uint64's does; the masks make its shifts logical."""
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * _MULTIPLIER_1
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * _MULTIPLIER_2
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


@triton.jit
def stream_of(key, draw):
    """What (key, draw), both int64, contributes to the hash: computed once for all counters."""
    return mix(mix(key + _KEY_INCREMENT) + draw)


@triton.jit
def hashed_bits(stream, counter):
    """53 random bits, int64, of int64 counters."""
    return (mix(mix(counter * _GOLDEN_RATIO + stream) + stream) >> 11) & 0x1FFFFFFFFFFFFF


@triton.jit
def uniform(stream, counter):
    """Uniform numbers in (0, 1), float64, of int64 counters."""
    return (hashed_bits(stream, counter).to(tl.float64) + 0.5) / 9007199254740992.0
