"""What the reference leaves out: members that fastdens does not define, and fields of named tuples.

The methods that a class inherits from torch or scikit-learn are in the documentation of these; the fields of a named
tuple are in the docstring of its class.
"""

from __future__ import annotations

import collections
from typing import Any

from sphinx.application import Sphinx

_FieldOfNamedTuple = type(collections.namedtuple("_Example", "field").field)


def skip_member(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Tell autodoc to leave a member out; None where it may decide for itself."""
    if isinstance(member, _FieldOfNamedTuple):
        return True
    defined = getattr(member, "fget", None) or getattr(member, "func", None) or member
    module = getattr(getattr(defined, "__objclass__", defined), "__module__", None)
    return True if module is not None and module.split(".")[0] != "fastdens" else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Look at every member before it is documented."""
    app.connect("autodoc-skip-member", skip_member)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
