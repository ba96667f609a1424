"""How fast a named card could be at best: operations over its rate, or bytes over its bandwidth, whichever is longer.

These are estimates and no measurements (Williams, Waterman & Patterson, Roofline: an insightful visual performance
model for multicore architectures, CACM 52, 2009). Launches, latencies and the host are left out, and every tensor of a
launch is taken to move once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Card:
    """Dense rates in operations per second, of matrix units where a kernel uses them, and bytes per second.

    ``float32`` is that of ordinary units, which "ieee" products take; ``float64`` that of the faster of the two.
    """

    name: str
    float32: float
    tf32: float
    float64: float
    bandwidth: float
    source: str

    def rate(self, dtype: torch.dtype, matmul_precision: str) -> float:
        """Operations per second of a product; one in "tf32x3" is three in tf32."""
        if dtype == torch.float64:
            return self.float64
        return {"ieee": self.float32, "tf32x3": self.tf32 / 3, "tf32": self.tf32}[matmul_precision]


# As their maker states them, without sparsity.
CARDS = {
    "A100": Card("A100 80GB SXM", 19.5e12, 156e12, 19.5e12, 2.039e12, "NVIDIA A100 Tensor Core GPU data sheet, 2021"),
    "H100": Card("H100 SXM", 66.9e12, 494.7e12, 66.9e12, 3.35e12, "NVIDIA H100 Tensor Core GPU Architecture, 2022"),
    "H200": Card("H200 SXM", 66.9e12, 494.7e12, 66.9e12, 4.8e12, "NVIDIA H200 Tensor Core GPU data sheet, 2023"),
    "RTX 4090": Card("RTX 4090", 82.6e12, 82.6e12, 1.29e12, 1.008e12, "NVIDIA Ada GPU Architecture, 2022"),
}


@dataclass(frozen=True)
class Estimate:
    """Seconds at best, and which of the two limits they come from, "operations" or "bytes"."""

    seconds: float
    limit: str


def estimate(card: Card, dtype: torch.dtype, matmul_precision: str, n_operations: int, n_bytes: int) -> Estimate:
    """The roofline of a card for an amount of work."""
    of_operations = n_operations / card.rate(dtype, matmul_precision)
    of_bytes = n_bytes / card.bandwidth
    return Estimate(max(of_operations, of_bytes), "operations" if of_operations > of_bytes else "bytes")
