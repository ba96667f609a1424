"""The Triton kernels of the package that are launched, found in its source: ``kernel[grid](...)``."""

from __future__ import annotations

import ast
from pathlib import Path

KERNELS = Path(__file__).parents[2] / "kernels"


def launched_kernels() -> set[str]:
    """Names of the jitted functions that some launcher launches; the others are called from them."""
    trees = [ast.parse(path.read_text()) for path in KERNELS.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    jitted = {
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef) and any("triton.jit" in ast.unparse(d) for d in node.decorator_list)
    }
    indexed = [node.func.value for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)]
    return jitted & {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in indexed}
