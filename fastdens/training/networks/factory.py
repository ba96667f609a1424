"""Networks made by a function of the user: "FILE.py:FUNCTION" or "package.module:function"."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from fastdens.kernels.options import suggest


def is_factory(name: str) -> bool:
    """Whether a network's name has the form MODULE:FUNCTION or FILE.py:FUNCTION."""
    module, _, function = name.rpartition(":")
    is_module = module.endswith(".py") or all(part.isidentifier() for part in module.split("."))
    return is_module and function.isidentifier()


def network_from_factory(name: str, n_classes: int, *, allow_code: bool) -> nn.Module:
    """Call the function that ``name`` names with the number of classes; its module is imported, and so its code runs.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModuleNotFoundError
        If there is no such module.
    ValueError
        If ``allow_code`` is False, and nothing has run then; or if the module has no such function, or the function
        returns no ``nn.Module``.
    """
    if not allow_code:
        raise ValueError(
            f"the network {name!r} is Python code, which runs with all that you may do: pass allow_code (--allow-code "
            "on the command line) if you trust it."
        )
    model = _factory(name)(n_classes)
    if not isinstance(model, nn.Module):
        source, _, function = name.rpartition(":")
        raise ValueError(
            f"{function} of {source} returned {type(model).__name__}, not an nn.Module: return the network."
        )
    return model


def _factory(name: str) -> Callable[[int], Any]:
    source, _, function = name.rpartition(":")
    if source.endswith(".py"):
        if not Path(source).is_file():
            raise FileNotFoundError(f"there is no file {source} for the network {name!r}: put {function!r} in it.")
        module = _module_of_file(Path(source))
    else:
        module = importlib.import_module(source)
    factory: Callable[[int], Any] | None = getattr(module, function, None)
    if factory is not None and callable(factory):
        return factory
    known = [other for other, value in vars(module).items() if callable(value) and not other.startswith("_")]
    nearest = f": the nearest names are {suggest(function, known)}" if known else ": define it"
    raise ValueError(f"{source} has no function {function!r}{nearest}.")


def _module_of_file(path: Path) -> ModuleType:
    name = f"fastdens_network_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a class's module up there.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
