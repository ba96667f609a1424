"""The kernel of CONTRIBUTING.md, added to a copy of the tree as the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
NEW_FILE = re.compile(r"^`(\S+)`:\n\n```python\n(.*?)^```$", re.M | re.S)
CHANGES = re.compile(r"^```diff\n(.*?)^```$", re.M | re.S)
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "PYTHONPATH")}


def run(tree: Path, *command: str) -> str:
    """What a command prints in the copy, which is no part of a repository around it."""
    done = subprocess.run(
        command,
        cwd=tree,
        env=ENVIRONMENT | {"GIT_CEILING_DIRECTORIES": str(tree.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the tree with the kernel, in which ``fastdens.kernels`` is a folder, as it installs."""
    tree = tmp_path_factory.mktemp("contributing")
    skip = shutil.ignore_patterns("__pycache__", "saved", "corpus", "*.egg-info")
    for folder in ("docs/api", "fastdens", "kernels", "tests"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tree)
    for path, content in NEW_FILE.findall(PAGE):
        assert not (tree / path).exists(), path
        (tree / path).write_text(content)
    for number, change in enumerate(CHANGES.findall(PAGE)):
        (tree / f"{number}.patch").write_text(change)
        run(tree, "git", "apply", f"{number}.patch")
    return tree


def test_the_page_has_the_pieces():
    paths = [path for path, _ in NEW_FILE.findall(PAGE)]
    assert paths == [
        "kernels/reference/deviation.py",
        "kernels/cpu/deviation.py",
        "kernels/deviation.py",
        "tests/kernels/test_deviation.py",
    ]
    assert len(CHANGES.findall(PAGE)) == 3


def test_style(tree):
    ruff = (sys.executable, "-m", "ruff")
    touched = [path for path, _ in NEW_FILE.findall(PAGE)] + re.findall(r"^\+\+\+ b/(\S+\.py)$", PAGE, re.M)
    run(tree, *ruff, "check", "--no-cache", *touched)
    run(tree, *ruff, "format", "--no-cache", "--check", *touched)


@pytest.mark.slow
def test_the_kernel_passes_the_tests_of_the_page(tree):
    (tree / "fastdens" / "kernels").symlink_to(tree / "kernels")
    tests = ["tests/kernels/test_deviation.py", "tests/kernels/test_strides.py", "tests/test_layering.py"]
    # The other operations would be compiled anew: of them, what takes no compiler.
    chosen = "deviation or reference or every_operation or one_way or long"
    passed = run(tree, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", chosen)
    assert re.search(r"\b52 passed", passed), passed
    compiled = run(
        tree,
        sys.executable,
        "-c",
        "from fastdens.kernels.machine_code import kernel_reports\n"
        "from fastdens.kernels.machine_code.operations import *\n"
        "deviation = {'mean absolute deviation': STARTS['mean absolute deviation']}\n"
        "for report in kernel_reports(record(deviation, Shape(2, 40, 17, 2)), (90,), n_processes=1):\n"
        "    print(report.kernel, report.code.spill_bytes)",
    )
    assert compiled.split() == ["deviation_kernel", "0"]
