"""Which network it is: fingerprints for files that belong to one."""

from __future__ import annotations

import hashlib
import re

from torch import Tensor, nn

from fastdens.activations.evaluation import has_bits, unwrapped
from fastdens.io.state_file import fingerprint

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def model_identity(model: nn.Module) -> dict[str, str]:
    """Fingerprints of what a network consists of; what its ``forward`` does with them they do not tell.

    Parameters
    ----------
    model : nn.Module
        Wrappers for compilation or several devices do not count.

    Returns
    -------
    dict of str to str
        "weights", from the values of its ``state_dict``; "structure", from the names, types and settings of its modules
        and the names of the values.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    >>> fd.activations.model_identity(one) == fd.activations.model_identity(other)
    False
    """
    network = unwrapped(model)
    state = network.state_dict().items()
    values = {name: value for name, value in state if isinstance(value, Tensor) and has_bits(value)}
    lines = [f"{name}: {type(module).__qualname__}({module.extra_repr()})" for name, module in network.named_modules()]
    text = _ADDRESS.sub("", "\n".join([*lines, *values]))
    return {
        "weights": fingerprint(values.values()),
        "structure": hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
    }
