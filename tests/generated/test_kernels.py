"""Operations on tensors that do not belong together: every backend refuses them, and computes on others alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastdens import kernels
from tests.contract import outcome
from tests.generated.strategies import choices_or_not, floats_or_not, integers_or_not

KINDS = ("full", "tied", "diag", "spherical")
SIZES, D, K = (9, 12), 2, 2
N, M = sum(SIZES), len(SIZES)


def usual(kind: str, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of operations on mixtures, all as they should be."""
    rng = np.random.default_rng(0)
    shape = {"full": (M, K, D, D), "tied": (M, D, D), "diag": (M, K, D), "spherical": (M, K)}[kind]
    factors = torch.eye(D).expand(shape) if kind in ("full", "tied") else torch.ones(shape)
    return {
        "points": torch.from_numpy(rng.normal(size=(N, D))).to(dtype),
        "layout": torch.tensor([0, *np.cumsum(SIZES).tolist()]),
        "weights": torch.full((M, K), 0.5, dtype=dtype),
        "means": torch.from_numpy(rng.normal(size=(M, K, D))).to(dtype),
        "precisions_cholesky": factors.to(dtype).contiguous(),
        "resp": torch.full((N, K), 0.5, dtype=dtype),
        "centres": torch.zeros(M, K, D, dtype=dtype),
        "lower_bound": torch.full((M,), -torch.inf, dtype=torch.float64),
    }


def spoilt(tensor: torch.Tensor, how: str) -> Any:
    """The tensor, with something wrong or unusual about it."""
    if not tensor.is_floating_point() and how in ("NaN", "huge", "gradient", "negative"):
        how = "shifted"
    return {
        "dtype": lambda: tensor.half() if tensor.is_floating_point() else tensor.int(),
        "other dtype": lambda: tensor.double() if tensor.dtype == torch.float32 else tensor.float(),
        "long": lambda: torch.cat([tensor, tensor[:1]]),
        "short": lambda: tensor[:-1],
        "empty": lambda: tensor[:0],
        "one axis more": lambda: tensor[None],
        "one axis less": lambda: tensor[0],
        "wide": lambda: torch.cat([tensor, tensor], -1),
        "no columns": lambda: tensor[..., :0],
        "strided": lambda: tensor.repeat_interleave(2, -1)[..., ::2],
        "transposed": lambda: tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor,
        "expanded": lambda: tensor[:1].expand(tensor.shape),
        "NaN": lambda: tensor.masked_fill(torch.arange(tensor.numel()).reshape(tensor.shape) == 1, torch.nan),
        "huge": lambda: tensor * 1e300,
        "negative": lambda: -tensor,
        "shifted": lambda: tensor + 1,
        "descending": lambda: tensor.flip(0),
        "gradient": lambda: tensor.clone().requires_grad_(),
        "meta": lambda: tensor.to("meta"),
        "sparse": tensor.to_sparse,
        "array": tensor.numpy,
        "list": tensor.tolist,
        "nothing": lambda: None,
        "number": lambda: 3,
    }[how]()


SPOILS = ["dtype", "other dtype", "long", "short", "empty", "one axis more", "one axis less", "wide", "no columns"]
SPOILS += ["strided", "transposed", "expanded", "NaN", "huge", "negative", "shifted", "descending", "gradient", "meta"]
SPOILS += ["sparse", "array", "list", "nothing", "number"]
MIXTURE = ("weights", "means", "precisions_cholesky")
OPERATIONS: dict[str, tuple[str, ...]] = {
    "mixture_log_prob": ("points", *MIXTURE),
    "responsibilities": ("points", "layout", *MIXTURE),
    "em_statistics": ("points", "layout", *MIXTURE),
    "sufficient_statistics": ("points", "layout", "resp", "centres"),
    "em_steps": ("points", "layout", *MIXTURE, "lower_bound"),
}


@given(st.sampled_from(sorted(OPERATIONS)), st.sampled_from(KINDS), st.data())
def test_mixtures_that_do_not_fit(name, kind, data):
    arguments = usual(kind, data.draw(st.sampled_from([torch.float32, torch.float64])))
    wrong = data.draw(st.sampled_from(OPERATIONS[name]))
    arguments[wrong] = spoilt(arguments[wrong], data.draw(st.sampled_from(SPOILS)))
    options = {"n_steps": 2, "tol": 0.0, "reg_covar": 1e-6} if name == "em_steps" else {}
    results = []
    for backend in ("cpu", "reference"):
        # A kernel may write to what it is given.
        given_ = [v.clone() if isinstance(v, torch.Tensor) else v for v in map(arguments.get, OPERATIONS[name])]
        call = getattr(kernels, name)
        found, _ = outcome(lambda: call(*given_, covariance_type=kind, backend=backend, **options))  # noqa: B023
        results.append(found)
    one, other = results
    assert (one is None) == (other is None), "one backend computes what another refuses"
    if name == "mixture_log_prob" and one is not None:
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3, equal_nan=True)


@given(st.data())
def test_options_of_operations(data):
    arguments = usual("full", torch.float64)
    mixture = [arguments[name] for name in ("points", "layout", *MIXTURE)]
    options = {
        "covariance_type": data.draw(choices_or_not(*KINDS)),
        "backend": data.draw(choices_or_not("auto", "cpu", "reference")),
        "matmul_precision": data.draw(choices_or_not("ieee", "tf32", "tf32x3")),
    }
    outcome(lambda: kernels.responsibilities(*mixture, **options))
    n, seed = data.draw(integers_or_not()), data.draw(integers_or_not())
    points, layout = arguments["points"], arguments["layout"]
    real = data.draw(floats_or_not())
    outcome(lambda: kernels.kmeans_plusplus(points, layout, n, seed))
    outcome(lambda: kernels.kmeans(points, layout, n, seed, max_iter=3, tol=real))
    outcome(lambda: kernels.random_rows(layout, n, seed))
    outcome(lambda: kernels.random_responsibilities(layout, N, n, seed, torch.float64))


def sampled() -> dict[str, Any]:
    """Arguments of the sampler, all as they should be."""
    rng = np.random.default_rng(1)
    return {
        "points": torch.from_numpy(rng.normal(size=(N, D))),
        "layout": torch.tensor([0, *np.cumsum(SIZES).tolist()]),
        "labels": torch.zeros(1, N, dtype=torch.int32),
        "alpha": torch.ones(M, 1, dtype=torch.float64),
        "keys": torch.arange(M)[:, None],
        "prior_mean": torch.zeros(M, D, dtype=torch.float64),
        "prior_scale": torch.ones(M, D, dtype=torch.float64),
    }


@given(st.sampled_from(sorted(sampled())), st.sampled_from(SPOILS), st.data())
def test_chains_that_do_not_fit(wrong, how, data):
    arguments = sampled()
    arguments[wrong] = spoilt(arguments[wrong], how)
    options = {"kappa0": 0.01, "nu0": 4.0}
    name = data.draw(st.sampled_from(["kappa0", "nu0", "alpha_prior", "first_sweep", "n_sweeps", "thin", "none"]))
    if name != "none":
        small = st.sampled_from([1, 2, 0, -1, 1.5, None, "x", float("nan"), True, (1.0, 1.0), (0.0, -1.0)])
        options[name] = data.draw(small)
    outcome(lambda: kernels.gibbs_sweep(**arguments, **options, backend="cpu"))


@given(
    st.sampled_from(["component_offsets", "log_weights", "locations", "scale", "df", "points"]), st.sampled_from(SPOILS)
)
def test_student_t_components_that_do_not_fit(wrong, how):
    g = 3
    arguments = {
        "points": torch.zeros(5, D, dtype=torch.float64),
        "component_offsets": torch.tensor([0, 1, g]),
        "log_weights": torch.zeros(g, dtype=torch.float64),
        "locations": torch.zeros(g, D, dtype=torch.float64),
        "scale": torch.eye(D, dtype=torch.float64).repeat(g, 1, 1),
        "df": torch.full((g,), 4.0, dtype=torch.float64),
    }
    arguments[wrong] = spoilt(arguments[wrong], how)
    one, other = (
        outcome(lambda: kernels.student_t_log_prob(*arguments.values(), backend=backend))[0]  # noqa: B023
        for backend in ("cpu", "reference")
    )
    assert (one is None) == (other is None)
    if one is not None:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, equal_nan=True)
