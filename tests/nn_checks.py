"""What ranks do with a density head under DistributedDataParallel; ``main`` returns what they saw."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fastdens as fd


def main() -> dict[str, list[list[float]]]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 4, generator=generator), torch.arange(60) % 3
    torch.manual_seed(dist.get_rank())
    head = fd.nn.DensityHead(4, 3)
    network = DistributedDataParallel(nn.Sequential(nn.Linear(4, 4), head))
    scores = {}
    for step in ("first", "second"):
        if dist.get_rank() == 0:
            head.partial_fit(x if step == "first" else 2 * x, y)
        own = network(x)
        nn.functional.cross_entropy(own, y).backward()
        scores[step] = own.tolist()
    # A state that is loaded into the wrapped network is what the ranks share from then on.
    if dist.get_rank() == 0:
        state = network.state_dict()
        state = {name: value * 0 + 1 if name.endswith("means") else value for name, value in state.items()}
        network.load_state_dict(state)
    network(x)
    scores["means"] = head.density.means[:, 0].tolist()
    return scores
