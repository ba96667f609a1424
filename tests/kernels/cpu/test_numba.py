"""CPU kernels where numba finds no place for machine code."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import torch
from fastdens import kernels
print(kernels.precision_cholesky(torch.tensor([[[[2.0, 0.5], [0.5, 1.0]]]]))[0].tolist())
"""


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
        timeout=600,
    )


def test_kernels_run_without_a_cache():
    want = run(PROGRAM).stdout
    # As for a package and a home that are read-only: root may write everywhere, so the places are taken away.
    without = run(PROGRAM, NUMBA_CACHE_LOCATOR_CLASSES="IPythonCacheLocator")
    assert without.stdout == want
    assert without.stderr.count("numba finds no folder that it can write machine code to") == 1
    assert "set NUMBA_CACHE_DIR" in without.stderr


def test_kernels_run_with_a_cache_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    assert run(PROGRAM, NUMBA_CACHE_DIR=str(tmp_path / "file" / "cache")).stdout
