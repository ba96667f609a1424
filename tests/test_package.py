"""The package as it installs, and what importing it imports."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(code: str, *flags: str, cwd: Path | None = None) -> str:
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_needs_torch_and_numpy_only():
    optional = "triton numba sklearn scipy faiss torchvision matplotlib rich diptest safetensors zarr"
    run(f"import sys\nfor name in '{optional}'.split(): sys.modules[name] = None\nimport fastdens")


def test_import_loads_neither_triton_nor_numba():
    loaded = run(
        "import sys, torch\nbefore = set(sys.modules)\nimport fastdens\nprint(*(set(sys.modules) - before), sep='\\n')"
    ).split()
    assert not {"triton", "numba"} & {name.split(".")[0] for name in loaded}


def test_missing_extras_are_named():
    code = (
        "import sys; sys.modules['numba'] = None\nimport torch, fastdens as fd\n"
        "try: fd.GaussianMixtures(1).fit(fd.RaggedBatch.from_list([torch.randn(9, 2)]))\n"
        "except ImportError as error: print(error)"
    )
    assert "fastdens[cpu]" in run(code)
    code = (
        "import os, sys; os.environ['TRITON_INTERPRET'] = '1'; sys.modules['triton'] = None\n"
        "import torch, fastdens as fd\n"
        "try: fd.GaussianMixtures(1, backend='triton').fit(fd.RaggedBatch.from_list([torch.randn(9, 2)]))\n"
        "except ImportError as error: print(error)"
    )
    assert "fastdens[gpu]" in run(code)


def test_every_package_installs():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join((top, *path.parent.relative_to(ROOT / folder).parts))
        for folder, top in (("fastdens", "fastdens"), ("kernels", "fastdens.kernels"))
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(listed)
