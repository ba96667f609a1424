"""What of the library is public: the modules, their names, and the methods and properties of their classes."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

MODULES = (
    "fastdens",
    "fastdens.activations",
    "fastdens.analysis",
    "fastdens.analysis.figures",
    "fastdens.convergence",
    "fastdens.distributed",
    "fastdens.kernels",
    "fastdens.nn",
    "fastdens.ood",
    "fastdens.ood.pytorch_ood",
    "fastdens.partitions",
    "fastdens.pipeline",
    "fastdens.reduction",
    "fastdens.report",
    "fastdens.sklearn",
    "fastdens.training",
    "fastdens.training.datasets",
    "fastdens.training.runs",
)


class Public(NamedTuple):
    """A public name, and the object that has its docstring."""

    name: str
    value: Any

    @property
    def is_record(self) -> bool:
        """Whether it is a class of fields alone: what a function returns, or takes as options."""
        return inspect.isclass(self.value) and (hasattr(self.value, "_fields") or dataclasses.is_dataclass(self.value))


def names_of(module: str) -> list[str]:
    """``__all__`` without modules; of a file that has none, the classes and functions that it defines."""
    found = importlib.import_module(module)
    if hasattr(found, "__all__"):
        return [name for name in found.__all__ if not inspect.ismodule(getattr(found, name))]
    return [
        name
        for name, value in vars(found).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module
    ]


def public_objects() -> Iterator[Public]:
    """The functions, classes and constants of all modules."""
    for module in MODULES:
        for name in names_of(module):
            yield Public(f"{module}.{name}", getattr(importlib.import_module(module), name))


def members_of(public: Public) -> Iterator[Public]:
    """Public methods and properties of a class that fastdens defines, those of its bases included.

    A method without a docstring has that of the base which it overrides.
    """
    if not inspect.isclass(public.value):
        return
    for name in dir(public.value):
        own = [vars(base)[name] for base in public.value.__mro__ if name in vars(base) and _is_ours(base)]
        if name.startswith("_") or not own or name not in vars(_definer(public.value, name)):
            continue
        plain = [getattr(member, "__func__", member) for member in own]
        documented = next((member for member in plain if getattr(member, "__doc__", None)), plain[0])
        if inspect.isfunction(documented) or isinstance(documented, property) or hasattr(documented, "func"):
            yield Public(f"{public.name}.{name}", documented)


def _definer(owner: type, name: str) -> type:
    """The class from which an attribute comes, if it is one of ours; the owner otherwise."""
    first = next(base for base in owner.__mro__ if name in vars(base))
    return first if _is_ours(first) else owner


def _is_ours(base: type) -> bool:
    return base.__module__.split(".")[0] == "fastdens"
