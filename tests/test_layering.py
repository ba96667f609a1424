"""The direction of imports: every package, deferred and type-checking imports included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module imports from its own package and from those of a lower level; the root is the door to all of them.
LEVELS = (
    ("fastdens.kernels",),
    ("fastdens.arrays", "fastdens.f_distribution", "fastdens.memory", "fastdens.printable"),
    ("fastdens.progress",),
    ("fastdens.labels", "fastdens.sample_weights"),
    ("fastdens.model_rows",),
    ("fastdens.io",),
    ("fastdens.batch",),
    ("fastdens.errors",),
    ("fastdens.process_group",),
    (
        "fastdens.activations",
        "fastdens.convergence",
        "fastdens.draws_for_arviz",
        "fastdens.partitions",
        "fastdens.reduction",
    ),
    ("fastdens.distributions",),
    ("fastdens.inference",),
    ("fastdens.mixtures",),
    ("fastdens.class_layer", "fastdens.distributed", "fastdens.model_choice", "fastdens.nn", "fastdens.sklearn"),
    ("fastdens.saved_fits",),
    ("fastdens.analysis", "fastdens.training"),
    ("fastdens.ood", "fastdens.pipeline"),
    ("fastdens.bench", "fastdens.report"),
    ("fastdens.cli",),
    ("fastdens.__main__",),
    ("fastdens",),
)
LEVEL_OF = {package: level for level, packages in enumerate(LEVELS) for package in packages}


def find_modules(root: Path) -> dict[str, Path]:
    """The modules of the library by name; ``kernels/`` installs as ``fastdens.kernels``."""
    modules = {}
    for folder, package in (("fastdens", "fastdens"), ("kernels", "fastdens.kernels")):
        for path in (root / folder).rglob("*.py"):
            parts = [package, *path.relative_to(root / folder).with_suffix("").parts]
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imported_names(tree: ast.AST) -> set[str]:
    """Every name that is imported anywhere in a module, the module and the member of ``from module import member``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "fastdens"}


def module_of(name: str, modules: dict[str, Path]) -> str:
    """The module that holds a name."""
    while name not in modules:
        name = name.rpartition(".")[0]
    return name


def package_of(module: str) -> str:
    """The entry of LEVELS to which a module belongs."""
    first_two = ".".join(module.split(".")[:2])
    assert first_two in LEVEL_OF, f"{module} has no level: give it one"
    return first_two


def breaches(modules: dict[str, Path]) -> list[str]:
    """Imports that point up or sideways, private names taken from another package, and circles."""
    found, edges = [], {}
    for module, path in sorted(modules.items()):
        own = module if path.name == "__init__.py" else module.rpartition(".")[0]
        edges[module] = set()
        for name in sorted(imported_names(ast.parse(path.read_text()))):
            target = module_of(name, modules)
            segments = name.split(".")
            for at, segment in enumerate(segments):
                outside = not f"{own}.".startswith(".".join(segments[:at]) + ".")
                if segment.startswith("_") and not segment.startswith("__") and outside:
                    found.append(f"{module} takes the private name {name}")
            if target == "fastdens":
                # Through the door, what may be imported is what it holds: nothing above the estimators.
                if LEVEL_OF[package_of(module)] <= LEVEL_OF["fastdens.mixtures"]:
                    found.append(f"{module} imports {name} through the root")
                continue
            if not module.startswith(f"{target}.") and target != module:
                edges[module].add(target)
            below, here = package_of(target), package_of(module)
            if below != here and LEVEL_OF[below] >= LEVEL_OF[here]:
                found.append(f"{module} imports {target}, which is not below it")
    return found + [f"circle: {' -> '.join(circle)}" for circle in circles(edges)]


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """One circle through each module that reaches itself, found by depth-first search."""
    found, done = [], set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for target in sorted(edges[module]):
                visit(target, [*path, module])
            done.add(module)

    for module in sorted(edges):
        visit(module, [])
    return found


def test_imports_point_one_way():
    assert breaches(find_modules(ROOT)) == []


@pytest.mark.parametrize(
    ("source", "breach"),
    [
        ("from fastdens.report import write_report", "not below it"),
        ("def f():\n    from fastdens.report.metrics import Metric", "not below it"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fastdens.report", "not below it"),
        ("from fastdens.analysis._arrays import as_numpy", "private name"),
        ("from fastdens.analysis.modes import _private", "private name"),
        ("import fastdens.training.second", "circle"),
    ],
)
def test_a_breach_is_found(tmp_path, source, breach):
    files = {
        "fastdens/__init__.py": "",
        "fastdens/analysis/__init__.py": "",
        "fastdens/analysis/_arrays.py": "",
        "fastdens/analysis/modes.py": "",
        "fastdens/report/__init__.py": "",
        "fastdens/report/metrics.py": "",
        "fastdens/training/__init__.py": "",
        "fastdens/training/second.py": "import fastdens.training.first",
        "fastdens/training/first.py": "",
        "kernels/__init__.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert breaches(find_modules(tmp_path)) == []
    (tmp_path / "fastdens/training/first.py").write_text(source)
    assert any(breach in line for line in breaches(find_modules(tmp_path)))


def test_no_module_is_long():
    long = {name: n for name, path in find_modules(ROOT).items() if (n := len(path.read_text().splitlines())) > 500}
    assert long == {}
