"""fd.nn.DensityHead: scores, derivatives, surroundings of a network, and learning that goes on after a reload."""

from __future__ import annotations

import copy
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import fastdens as fd
from tests.ranks import run_jobs

COVARIANCES = ("full", "tied", "diag", "spherical")
RELOAD = """
import sys
sys.modules["fastdens"] = None
import torch
program = torch.export.load(sys.argv[1] + "/net.pt2").module()
x, want = torch.load(sys.argv[1] + "/data.pt")
torch.testing.assert_close(program(x), want, rtol=1e-5, atol=1e-5)
"""


def labelled(rng, n: int = 60, d: int = 3, n_classes: int = 3, dtype: torch.dtype = torch.float32):
    y = rng.permutation(np.arange(n) % n_classes)
    x = rng.normal(size=(n, d)) + 2 * rng.normal(size=(n_classes, d))[y]
    return torch.from_numpy(x).to(dtype), torch.from_numpy(y)


def head_of(rng, **options) -> fd.nn.DensityHead:
    x, y = labelled(rng, 200)
    return fd.nn.DensityHead(3, 3, **{"n_components": 2, **options}).partial_fit(x, y)


def network_of(head: fd.nn.DensityHead) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 3), nn.Tanh(), head)


@pytest.mark.parametrize("covariance_type", COVARIANCES)
def test_scores_those_of_the_estimator_that_saw_the_same(rng, covariance_type):
    options = {"n_components": 2, "covariance_type": covariance_type, "random_state": 3}
    head, gm = fd.nn.DensityHead(3, ["a", "b", "c"], **options), fd.GaussianMixtures(**options)
    for _ in range(3):
        x, y = labelled(rng, 90)
        labels = np.array(["a", "b", "c"])[y.numpy()]
        assert head.partial_fit(x.reshape(9, 10, 3), labels.reshape(9, 10)) is head
        gm.partial_fit(fd.RaggedBatch.from_labels(x, labels))
    assert torch.equal(head(x), gm.log_prob(x)) and head.classes == ("a", "b", "c")
    assert torch.equal(head(x.reshape(9, 10, 3)), gm.log_prob(x).reshape(9, 10, 3))
    assert torch.equal(head(x[0]), gm.log_prob(x[:1])[0])
    assert torch.equal(head(x[:0]), x[:0])


@pytest.mark.filterwarnings("ignore::fastdens.ConvergenceWarning")
def test_of_fitted_estimators(rng):
    x, y = labelled(rng, 200)
    batch = fd.RaggedBatch.from_labels(x, y)
    for estimator in (
        fd.GaussianMixtures(2, max_iter=3),
        fd.VariationalDirichletProcessMixtures(truncation=3, max_iter=3),
    ):
        want = estimator.fit(batch).log_prob(x)
        head = fd.nn.DensityHead.from_estimator(estimator)
        assert torch.equal(head(x), want)
        if isinstance(estimator, fd.GaussianMixtures):
            # It goes on from the fit, which stays what it was.
            head.partial_fit(x + 1, y)
            assert not torch.equal(head(x), want)
        else:
            with pytest.raises(TypeError, match="does not learn"):
                head.partial_fit(x, y)
        assert torch.equal(estimator.log_prob(x), want)
        density = estimator.density()
        alone = fd.nn.DensityHead.from_density(density)
        alone.density.load_state_dict({name: torch.zeros_like(t) for name, t in density.state_dict().items()})
        assert torch.equal(density(x), want)


def test_log_prior_and_projection(rng):
    x, y = labelled(rng, 300, d=6)
    svd = fd.reduction.UncentredSVD(2).fit(x)
    prior = torch.tensor([0.2, 0.3, 0.5]).log()
    head = fd.nn.DensityHead(6, 3, log_prior=prior, projection=svd).partial_fit(x, y)
    gm = fd.GaussianMixtures(1).partial_fit(fd.RaggedBatch.from_labels(svd.transform(x), y))
    torch.testing.assert_close(head(x), gm.log_prob(svd.transform(x)) + prior)
    assert set(head.state_dict()) >= {"log_prior", "projection"} and head.n_features == 6
    x = x[:2].double().requires_grad_()
    assert torch.autograd.gradcheck(head.double(), x) and torch.autograd.gradgradcheck(head, x)


def test_an_unknown_class_is_never_chosen_and_spoils_no_other(rng):
    x, y = labelled(rng, 90)
    head = fd.nn.DensityHead(3, 4, covariance_type="diag")
    assert (head(x) == -torch.inf).all()
    head.partial_fit(x, y)
    assert head.estimator.failed_.tolist() == [False, False, False, True]
    x.requires_grad_()
    scores = head(x)
    assert (scores[:, 3] == -torch.inf).all() and scores[:, :3].isfinite().all()
    nn.functional.cross_entropy(scores, y).backward()
    assert x.grad.isfinite().all()
    x = x.detach()
    x[0, 0] = torch.nan
    assert head(x)[0].isnan().all() and head(x)[1:, :3].isfinite().all()


def test_half_precision_and_autocast(rng):
    head = head_of(rng, covariance_type="full")
    x, _ = labelled(rng, 8)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(head(x.to(dtype)), head(x.to(dtype).float()))
            assert torch.equal(copy.deepcopy(head).to(dtype)(x), head(x))
    inside = copy.deepcopy(head)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        x, y = labelled(rng)
        inside.partial_fit(x, y)
    x = x.clone()
    assert torch.equal(inside(x), head.partial_fit(x, y)(x))
    assert inside.partial_fit(x, y)(x.requires_grad_()).sum().backward() is None


def test_learning_between_forward_and_backward(rng):
    x, y = labelled(rng)
    head = head_of(rng)
    one, other = (x.clone().requires_grad_() for _ in range(2))
    loss = nn.functional.cross_entropy(head(one), y)
    nn.functional.cross_entropy(head(other), y).backward()
    assert not head.partial_fit(one, y).density.means.requires_grad
    loss.backward()
    assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_with_its_network_and_sees_what_it_learns(rng, backend):
    network = network_of(head_of(rng, covariance_type="diag"))
    x = torch.from_numpy(rng.normal(size=(40, 5))).float()
    torch._dynamo.reset()
    compiled = torch.compile(network, backend=backend, fullgraph=True)
    for _ in range(2):
        want = torch.autograd.grad(network(x).sum(), network[0].weight)
        torch.testing.assert_close(compiled(x), network(x))
        torch.testing.assert_close(torch.autograd.grad(compiled(x).sum(), network[0].weight), want)
        network[2].partial_fit(network[:2](x), torch.arange(40) % 3)


def test_exports_with_its_network(rng, tmp_path):
    network = network_of(head_of(rng, log_prior=torch.zeros(3))).eval()
    x = torch.from_numpy(rng.normal(size=(7, 5))).float()
    rows = ({0: torch.export.Dim("rows", min=1)},)
    torch.export.save(torch.export.export(network, (x,), dynamic_shapes=rows), tmp_path / "net.pt2")
    torch.save((x[:2], network(x[:2]).detach()), tmp_path / "data.pt")
    done = subprocess.run([sys.executable, "-c", RELOAD, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.onnx.export(network, (x,), tmp_path / "net.onnx", dynamo=True, dynamic_shapes=rows, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (got,) = session.run(None, {session.get_inputs()[0].name: x[:2].numpy()})
    np.testing.assert_allclose(got, network(x[:2]).detach(), rtol=1e-5, atol=1e-5)


def test_learning_goes_on_after_a_reload(rng):
    batches = [labelled(rng, 40) for _ in range(4)]
    head = fd.nn.DensityHead(3, 3, n_components=2)
    for x, y in batches[:2]:
        head.partial_fit(x, y)
    stream = io.BytesIO()
    torch.save(network_of(head).state_dict(), stream)
    stream.seek(0)
    state = torch.load(stream, weights_only=True)
    # So that safetensors and averages of states take it.
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    network = network_of(fd.nn.DensityHead(3, 3, n_components=2))
    means = network[2].density.means
    network.load_state_dict(state)
    assert network[2].density.means is means
    for other in (network[2], copy.deepcopy(head)):
        for x, y in batches[2:]:
            other.partial_fit(x, y)
    for x, y in batches[2:]:
        head.partial_fit(x, y)
    assert torch.equal(network[2](x), head(x)) and torch.equal(other(x), head(x))
    network.load_state_dict(network_of(fd.nn.DensityHead(3, 3, n_components=2)).state_dict())
    assert (network[2](x) == -torch.inf).all()
    x, y = batches[0]
    assert torch.equal(network[2].partial_fit(x, y)(x), fd.nn.DensityHead(3, 3, n_components=2).partial_fit(x, y)(x))
    with pytest.raises(RuntimeError, match="size mismatch"):
        network_of(fd.nn.DensityHead(3, 4, n_components=2)).load_state_dict(state)


def test_errors_are_one_sentence(rng):
    head = head_of(rng)
    x, y = labelled(rng)
    before = head(x)
    with pytest.raises(ValueError, match=r"features have shape \(60, 2\), but the head takes \[\.\.\., 3\]"):
        head(x[:, :2])
    x[y == 1] = torch.nan
    with pytest.raises(fd.ModelError, match="class 1"):
        head.partial_fit(x, y)
    with pytest.raises(ValueError, match="5"):
        head.partial_fit(x, torch.full_like(y, 5))
    assert torch.equal(head(x[y != 1]), before[y != 1])
    with pytest.raises(ValueError, match="log_prior has shape"):
        fd.nn.DensityHead(3, 3, log_prior=torch.zeros(2))
    with pytest.raises(ValueError, match="projection has D = 5, but n_features is 3"):
        fd.nn.DensityHead(3, 3, projection=torch.zeros(2, 5))
    with pytest.raises(fd.NotFittedError):
        fd.nn.DensityHead.from_estimator(fd.GaussianMixtures(1))


def test_learns_like_a_fit_of_all(rng):
    x, y = labelled(rng, 3000, dtype=torch.float64)
    head = fd.nn.DensityHead(3, 3, dtype=torch.float64, step_power=1.0)
    for rows in torch.arange(3000).split(100):
        head.partial_fit(x[rows], y[rows])
    exact = fd.GaussianMixtures(1).fit(fd.RaggedBatch.from_labels(x, y)).log_prob(x)
    torch.testing.assert_close(head(x), exact, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_ranks_share_what_the_first_has_learned(tmp_path):
    one, other = run_jobs("tests.nn_checks", tmp_path, {"ddp": (2, [])})["ddp"]
    assert one == other and one["first"] != one["second"]
    assert one["means"] == [[1.0] * 4] * 3
