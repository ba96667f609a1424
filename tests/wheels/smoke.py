"""What an installation must do, for its own Python to run outside of the sources: ``python smoke.py cpu analysis``.

The arguments are the extras that are installed. An assertion that fails says which piece does not work.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import fastdens as fd

CENTRES = torch.tensor([[-4.0, 0.0, 2.0], [4.0, 1.0, -2.0]])
SHOWN = ("torch", "numpy", "triton", "numba", "faiss-cpu", "safetensors", "scikit-learn", "scipy", "zarr", "cyclopts")


def planted(n_models: int = 3, n_points: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    """Points [N, 3] of two clusters, the same for every class, and their classes."""
    generator = torch.Generator().manual_seed(0)
    n = n_models * n_points
    x = CENTRES.repeat_interleave(n // 2, 0)[torch.randperm(n, generator=generator)]
    return x + 0.5 * torch.randn(n, 3, generator=generator), torch.arange(n) % n_models


def check_package() -> None:
    """The package lies where it should, and knows its version."""
    assert importlib.metadata.version("fastdens") == fd.__version__
    assert importlib.util.find_spec("kernels") is None, "the wheel installs a top-level kernels"
    assert (Path(fd.__file__).parent / "py.typed").is_file()
    assert Path(fd.kernels.__file__).parent == Path(fd.__file__).parent / "kernels"


def check_mixtures(backend: str) -> fd.GaussianMixtures:
    """EM finds the planted clusters of every model, and its log-densities are those of the float64 formulas."""
    x, y = planted()
    batch = fd.RaggedBatch.from_labels(x, y)
    gm = fd.GaussianMixtures(2, n_init=3, backend=backend).fit(batch)
    found = gm.means_.sort(1).values.sort(1).values
    assert (found[:, :, 0] - CENTRES[:, 0]).abs().max() < 0.3, gm.means_
    value, formula = (gm.density().log_prob(x.to(dtype)) for dtype in (torch.float32, torch.float64))
    assert (value - formula).abs().max() < 1e-3
    return gm


def check_sampler() -> fd.DirichletProcessMixtures:
    """Two chains of every model find both clusters."""
    x, y = planted()
    dp = fd.DirichletProcessMixtures(n_sweeps=60, burn_in=40, n_chains=2, progress=False)
    dp.fit(fd.RaggedBatch.from_labels(x, y))
    assert (dp.n_components_.double().median(-1).values <= 4).all() and (dp.n_components_ >= 2).all()
    assert torch.isfinite(dp.log_prob(x)).all()
    return dp


def check_saving(*fits: fd.GaussianMixtures | fd.DirichletProcessMixtures) -> None:
    """What is saved and loaded gives the same bits."""
    x, _ = planted()
    with tempfile.TemporaryDirectory() as folder:
        for number, fit in enumerate(fits):
            path = Path(folder) / f"{number}.safetensors"
            fit.save(path)
            loaded = fd.load(path)
            assert isinstance(loaded, type(fit)) and torch.equal(loaded.log_prob(x), fit.log_prob(x))


def check_interpreter() -> None:
    """Kernels for GPUs, in Triton's interpreter, say what the formulas say."""
    code = """
import torch
from fastdens import kernels
x, means = torch.randn(40, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
factors = torch.eye(3, dtype=torch.float64).expand(2, 3, 3).contiguous()
got, want = (kernels.gaussian_log_prob(x, means, factors, backend=b) for b in ("triton", "reference"))
torch.testing.assert_close(got, want)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"TRITON_INTERPRET": "1"})


def check_command() -> None:
    """The command answers, and analyses activations."""
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", "fastdens"]
        help_ = subprocess.run([*run, "analyze", "--help"], check=True, capture_output=True, text=True).stdout
        assert "--activations" in help_
        x, y = planted(n_models=6, n_points=40)
        np.save(Path(folder) / "layer1.npy", x.numpy())
        np.save(Path(folder) / "labels.npy", y.numpy())
        report = Path(folder) / "report"
        options = ["--activations", folder, "--output", str(report), "--density", "gmm"]
        done = subprocess.run([*run, "analyze", *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (report / "report.html").is_file() and (report / "numbers.csv").is_file()


def check_sklearn() -> None:
    """The estimators for one data set fit."""
    x, _ = planted(1)
    assert fd.sklearn.GaussianMixture(2, random_state=0).fit(x.numpy()).score(x.numpy()) < 0


def check_storage() -> None:
    """Points come from a zarr array."""
    import zarr

    x, y = planted()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.zarr"
        stored = zarr.open(str(path), mode="w", shape=x.shape, chunks=(100, 3), dtype="f4")
        stored[:] = x.numpy()
        gm = fd.GaussianMixtures(2).fit(fd.RaggedBatch.from_files(path, y.numpy()))
        assert torch.equal(gm.means_, fd.GaussianMixtures(2).fit(fd.RaggedBatch.from_labels(x, y)).means_)


def main(extras: set[str]) -> None:
    """Every check that the extras allow."""
    versions = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    print(f"Python {sys.version.split()[0]}", *(f"{name} {versions[name]}" for name in SHOWN if name in versions))
    check_package()
    check_mixtures("reference")
    if "cpu" in extras:
        check_saving(check_mixtures("auto"), check_sampler())
    if "triton" in versions:
        check_interpreter()
    if "analysis" in extras:
        check_command()
    if "sklearn" in extras:
        check_sklearn()
    if "storage" in extras:
        check_storage()
    print("fastdens works:", ", ".join(sorted(extras)) or "no extras")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
