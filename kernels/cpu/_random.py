"""CPU twin of the random numbers in :mod:`fastdens.kernels.counter_random`."""

from __future__ import annotations

import math

import numpy as np
from fastdens.kernels.cpu._numba import kernel


@kernel
def mix(z):
    """SplitMix64's finaliser of uint64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def stream_of(key, draw):
    """What (key, draw) contributes to the hash: computed once for all counters."""
    return mix(mix(np.uint64(key) + np.uint64(0x1E3779B97F4A7C15)) + np.uint64(draw))


@kernel
def bits_of(stream, counter):
    """53 random bits of a counter."""
    return mix(mix(np.uint64(counter) * np.uint64(0x9E3779B97F4A7C15) + stream) + stream) >> np.uint64(11)


@kernel
def uniform(stream, counter):
    """A uniform number in (0, 1)."""
    return (np.float64(bits_of(stream, counter)) + 0.5) / 9007199254740992.0


@kernel
def exponential(stream, counter):
    """An exponential number of rate one: minus the logarithm of the uniform number."""
    return -math.log(uniform(stream, counter))
