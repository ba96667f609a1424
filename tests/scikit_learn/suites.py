"""scikit-learn's own tests with estimators of this library in place of scikit-learn's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Mapping
from typing import Any
from unittest.mock import patch


def suite_of(module: str, replaced: Mapping[str, Any], left_out: Collection[str] = ()) -> dict[str, Callable[..., Any]]:
    """The test functions of one of scikit-learn's test modules, for a namespace that pytest collects.

    Parameters
    ----------
    module : str
        Its dotted name, ``package.tests.name``. It is loaded a second time, and scikit-learn stays as it is.
    replaced : mapping of str
        What the module imports from ``package`` in place of what is there.
    left_out : collection of str
        Tests that do not apply; each must be there.
    """
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    with patch.multiple(module.partition(".tests.")[0], **replaced):
        spec.loader.exec_module(loaded)
    tests = {name: test for name, test in vars(loaded).items() if name.startswith("test_")}
    unknown = set(left_out) - set(tests)
    assert not unknown, f"{module} of this scikit-learn has no {', '.join(sorted(unknown))}"
    return {name: test for name, test in tests.items() if name not in left_out}
