"""Counter-based random numbers: a hash of (key, draw, counter), the same on every device and in every order.

A key stands for a stream: a seed, or one chain of one model. A draw is one of the stream's random vectors, a counter
an element of it. Nothing is stored and nothing advances, so that results do not depend on the order of the work
(Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011). The hash is SplitMix64's finaliser (Steele, Lea &
Flood, Fast splittable pseudorandom number generators, OOPSLA 2014), applied twice to the key and twice to the counter.
:mod:`fastdens.kernels.counter_random_triton` and ``fastdens.kernels.cpu._random`` give the same numbers inside kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

# SplitMix64: the multipliers of its finaliser, and its increment, the golden ratio in 64 bits. Keys are not negative,
# so the increment that is added to them has no sign bit.
MULTIPLIER_1 = 0xBF58476D1CE4E5B9
MULTIPLIER_2 = 0x94D049BB133111EB
GOLDEN_RATIO = 0x9E3779B97F4A7C15
KEY_INCREMENT = GOLDEN_RATIO & 0x7FFFFFFFFFFFFFFF


def as_int64(word: int) -> int:
    """The int64 of the same bits as an unsigned word of 64 bits."""
    return word - (1 << 64) if word >> 63 else word


_MULTIPLIER_1, _MULTIPLIER_2, _GOLDEN_RATIO = map(as_int64, (MULTIPLIER_1, MULTIPLIER_2, GOLDEN_RATIO))


def mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser; int64 arithmetic wraps as uint64 does, and the masks make its shifts logical."""
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * _MULTIPLIER_1
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * _MULTIPLIER_2
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


def hashed_bits(key: Tensor, draw: int, counter: Tensor) -> Tensor:
    """53 random bits, int64, for each element of ``counter`` (int64); ``key`` is int64 and broadcasts against it."""
    stream = mix(mix(key + KEY_INCREMENT) + draw)
    return (mix(mix(counter * _GOLDEN_RATIO + stream) + stream) >> 11) & 0x1FFFFFFFFFFFFF


def uniform_of_bits(bits: Tensor) -> Tensor:
    """Uniform numbers in (0, 1), float64, from 53 bits."""
    return (bits.double() + 0.5) / (1 << 53)


def hashed_uniform(seed: int, draw: int, counter: Tensor) -> Tensor:
    """Uniform numbers in (0, 1), float64, one for each element of ``counter`` (int64)."""
    key = torch.tensor(seed & 0x7FFFFFFFFFFFFFFF, dtype=torch.int64, device=counter.device)
    return uniform_of_bits(hashed_bits(key, draw, counter))
