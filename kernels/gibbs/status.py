"""Status of a chain in the sweep kernel.

A chain that is not done stands before a single-site update or a move that it cannot make: no slot is free, it takes
another variant of the kernel, or a scale matrix has lost its definiteness in rounding.
"""

from __future__ import annotations

from fastdens.kernels.optional_triton import tl

RUNNING = tl.constexpr(0)
DONE = tl.constexpr(1)
NEEDS_SLOTS = tl.constexpr(2)
NEEDS_REFIT = tl.constexpr(3)
SINGULAR = tl.constexpr(4)
NEEDS_MOVES = tl.constexpr(5)
