"""Densities as programs of torch.export and ONNX, which run in processes that know nothing of this library."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from tests.distributions.test_modules import NAMES, density_of

ROWS = ({0: torch.export.Dim("rows", min=1)},)
RELOAD = """
import sys
sys.modules["fastdens"] = None
import torch
folder = sys.argv[1]
data = torch.load(folder + "/data.pt")
for name, (x, want) in data.items():
    program = torch.export.load(f"{folder}/{name}.pt2").module()
    torch.testing.assert_close(program(x), want, rtol=1e-5, atol=1e-5)
"""


def operators_of(program: torch.export.ExportedProgram) -> str:
    return " ".join(str(node.target) for node in program.graph.nodes)


def test_programs_run_in_a_process_without_this_library(rng, tmp_path):
    data = {}
    for name in NAMES:
        density, x = density_of(rng, name)
        density.backend = "auto"
        network = nn.Sequential(nn.Linear(4, 4), density).eval()
        program = torch.export.export(network, (x,), dynamic_shapes=ROWS)
        assert "fastdens" not in operators_of(program)
        torch.export.save(program, tmp_path / f"{name}.pt2")
        longer = torch.cat([x, x + 1, x - 1])
        with torch.no_grad():
            data[name] = longer, network(longer)
    torch.save(data, tmp_path / "data.pt")
    done = subprocess.run([sys.executable, "-c", RELOAD, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_backend_by_name_stays_in_the_program(rng):
    density, x = density_of(rng, "full")
    program = torch.export.export(density, (x,), dynamic_shapes=ROWS)
    assert "fastdens.mixture_log_prob" in operators_of(program)
    assert torch.equal(program.module()(x[:2]), density(x[:2]))


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_exported_leaves_later_calls_alone(rng, strict):
    density, x = density_of(rng, "diag")
    density.backend = "auto"
    torch.export.export(density, (x,), strict=strict)
    # Of a shape that no call before had: what was made in tracing must not serve it.
    assert density(x).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        program = torch.export.export(density, (x,), strict=strict)
    torch.testing.assert_close(program.module()(x), density(x))


@pytest.mark.parametrize("name", ["full", "tied across models", "student t"])
def test_onnx(rng, tmp_path, name):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    density, x = density_of(rng, name)
    density.backend = "auto"
    network = nn.Sequential(nn.Linear(4, 4), density).eval()
    torch.onnx.export(network, (x,), tmp_path / "net.onnx", dynamo=True, dynamic_shapes=ROWS, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for points in (x, x[:1], torch.cat([x, 100 * x])):
        (got,) = session.run(None, {session.get_inputs()[0].name: points.numpy()})
        np.testing.assert_allclose(got, network(points).detach(), rtol=1e-5, atol=1e-5)
