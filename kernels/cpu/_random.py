"""The random numbers of :mod:`fastdens.kernels.counter_random` inside CPU kernels."""

from __future__ import annotations

import math

import numpy as np
from fastdens.kernels import counter_random
from fastdens.kernels.cpu._numba import kernel

_MULTIPLIER_1 = np.uint64(counter_random.MULTIPLIER_1)
_MULTIPLIER_2 = np.uint64(counter_random.MULTIPLIER_2)
_GOLDEN_RATIO = np.uint64(counter_random.GOLDEN_RATIO)
_KEY_INCREMENT = np.uint64(counter_random.KEY_INCREMENT)


@kernel
def mix(z):
    """SplitMix64's finaliser of uint64."""
    z = (z ^ (z >> np.uint64(30))) * _MULTIPLIER_1
    z = (z ^ (z >> np.uint64(27))) * _MULTIPLIER_2
    return z ^ (z >> np.uint64(31))


@kernel
def stream_of(key, draw):
    """What (key, draw) contributes to the hash: computed once for all counters."""
    return mix(mix(np.uint64(key) + _KEY_INCREMENT) + np.uint64(draw))


@kernel
def bits_of(stream, counter):
    """53 random bits of a counter."""
    return mix(mix(np.uint64(counter) * _GOLDEN_RATIO + stream) + stream) >> np.uint64(11)


@kernel
def uniform(stream, counter):
    """A uniform number in (0, 1)."""
    return (np.float64(bits_of(stream, counter)) + 0.5) / 9007199254740992.0


@kernel
def exponential(stream, counter):
    """An exponential number of rate one: minus the logarithm of the uniform number."""
    return -math.log(uniform(stream, counter))
