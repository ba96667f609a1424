"""Generated inputs of every kind to the public API: a result without NaN, or one sentence of ours.

FASTDENS_GENERATED_INPUTS is how many to make.
"""

from __future__ import annotations

import linecache
import os
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import fastdens as fd
from fastdens import analysis
from fastdens.batch import as_points

N_INPUTS = int(os.environ.get("FASTDENS_GENERATED_INPUTS", "200"))
PACKAGE, KERNELS = Path(fd.__file__).parent, Path(fd.kernels.__file__).parent
DTYPES = ["<f4", ">f4", "<f8", ">f8", "<f2", ">f2", "i1", "u1", ">i2", "<u2", "<i4", "<u4", "i8", "u8", "?", "g"]
DTYPES += ["c8", "O", "U3", "M8[s]"]
FORMS = ["as is", "as is", "tensor", "tensor", "gradient", "half", "bfloat16", "list", "Fortran", "reversed", "dict"]
FORMS += ["read-only", "broadcast", "masked", "objects", "None", "pandas", "nullable", "category", "series", "polars"]


def numbers(rng, shape):
    """Numbers of some scale, with what spoils them now and then."""
    x = np.array(rng.normal(size=shape) * 10.0 ** rng.choice([0, 0, 0, 2, -3, 6, 20, -20, 37, 150, -160, 300]))
    kind = rng.choice(["plain", "plain", "plain", "nan", "inf", "constant", "column", "duplicates", "shifted", "zero"])
    if x.size == 0 or x.ndim == 0:
        return x
    if kind in ("nan", "inf"):
        x.flat[rng.integers(x.size)] = np.nan if kind == "nan" else -np.inf
    elif kind == "constant":
        x[:] = x.flat[0]
    elif kind == "column":
        x[..., :1] = 1
    elif kind == "duplicates":
        x = x[rng.integers(0, max(1, len(x) // 4), len(x))]
    elif kind == "shifted":
        x += 1e6
    elif kind == "zero":
        x[:] = 0
    return x


def wrapped(rng, x):
    """The same array in some other form."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if rng.random() < 0.5 and x.dtype.kind != "U":
            x = x.astype(str(rng.choice(DTYPES)))
    form = rng.choice(FORMS) if x.ndim else "as is"
    if form in ("tensor", "gradient", "half", "bfloat16"):
        try:
            tensor = torch.from_numpy(np.ascontiguousarray(x))
        except Exception:
            return x
        if form == "gradient" and tensor.is_floating_point():
            return tensor.requires_grad_()
        return tensor.to({"half": torch.float16, "bfloat16": torch.bfloat16}.get(form, tensor.dtype))
    if form == "list":
        return x.tolist()
    if form == "Fortran":
        return np.asfortranarray(x)
    if form == "reversed":
        return x[::-1]
    if form == "read-only":
        x.flags.writeable = False
    if form == "broadcast" and len(x):
        return np.broadcast_to(x[:1], x.shape)
    if form == "masked":
        return np.ma.array(x, mask=rng.random(x.shape) < rng.choice([0, 0.1]))
    if form in ("objects", "None"):
        objects = x.astype(object)
        if form == "None" and x.size:
            objects.flat[rng.integers(x.size)] = None
        return objects
    if form in ("pandas", "nullable", "category", "series"):
        pd = pytest.importorskip("pandas")
        try:
            made = pd.Series(list(x)) if form == "series" else pd.DataFrame(x)
            if form == "nullable":
                return made.convert_dtypes()
            return made.astype("category") if form == "category" else made
        except Exception:
            return x
    if form == "polars":
        pl = pytest.importorskip("polars")
        try:
            return pl.DataFrame(x)
        except Exception:
            return x
    return {"x": x} if form == "dict" and rng.random() < 0.2 else x


def labels(rng, n):
    codes = rng.integers(0, rng.choice([1, 2, 3, max(1, n)]), n)
    kind = rng.choice(["codes", "codes", "codes", "from 1", "gaps", "huge", "names", "floats", "halves", "nan"])
    made = {
        "codes": codes,
        "from 1": codes + 1,
        "gaps": codes * 7,
        "huge": codes * 10**15,
        "names": np.array([f"class {c}" for c in codes]),
        "floats": codes.astype(float),
        "halves": codes / 2,
        "nan": np.where(rng.random(n) < 0.1, np.nan, codes),
    }[kind]
    return wrapped(rng, np.asarray(made))


def data(rng):
    n, d = int(rng.choice([0, 1, 2, 7, 30, 60])), int(rng.choice([0, 1, 2, 3, 5]))
    shape = (n, d) if rng.random() < 0.9 else [(n,), (), (n, d, 2)][rng.integers(3)]
    return wrapped(rng, numbers(rng, shape)), labels(rng, n)


def tensors(*results):
    for result in results:
        parts = result if isinstance(result, tuple) else [result]
        for part in parts:
            if isinstance(part, torch.Tensor | np.ndarray | float):
                yield torch.as_tensor(part)


def batch_of(rng, x, y):
    if rng.random() < 0.2:
        return fd.RaggedBatch.from_list([x, x])
    return fd.RaggedBatch.from_labels(x, y, n_classes=int(rng.integers(1, 5)) if rng.random() < 0.2 else None)


def fit_mixtures(rng, x, y):
    options = {"on_error": str(rng.choice(["raise", "skip"])), "max_iter": 3, "n_components": int(rng.integers(1, 4))}
    batch = batch_of(rng, x, y)
    kinds = ["full", "diag", "spherical", "tied"]
    gm = fd.GaussianMixtures(covariance_type=str(rng.choice(kinds)), random_state=0, **options).fit(batch)
    if gm.failures_:
        # Asked for; what failed is NaN and named.
        return ()
    return gm.weights_, gm.means_, gm.covariances_, gm.score_samples(batch), gm.log_prob(x), gm.predict_proba(batch)


def fit_processes(rng, x, y):
    batch = batch_of(rng, x, y)
    dp = fd.DirichletProcessMixtures(n_sweeps=6, burn_in=2, thin=2, progress=False).fit(batch)
    return dp.alpha_, dp.log_joint_, dp.score_samples(batch), dp.log_prob(x)


def fit_variational(rng, x, y):
    batch = batch_of(rng, x, y)
    vb = fd.VariationalDirichletProcessMixtures(max_iter=3, truncation=3).fit(batch)
    return vb.alpha_, vb.score_samples(batch), vb.log_prob(x), vb.density().sample(3)


def score_other_points(rng, x, _):
    """Points of every kind under mixtures that were fitted to usual ones."""
    d = x.shape[1] if getattr(x, "ndim", 0) == 2 and x.shape[1] else 2
    usual = rng.normal(size=(40, d)).astype(str(rng.choice(["f4", "f8"])))
    gm = fd.GaussianMixtures(2, random_state=0, max_iter=3).fit(fd.RaggedBatch.from_labels(usual, ["a", "b"] * 20))
    found = gm.log_prob(x)
    points = torch.as_tensor(np.asarray(as_points(x)))
    # NaN and infinity have no density, nor has what is too far for its square.
    return (found[(points.abs() < 1e140).all(1)],)


def project(rng, x, _):
    svd = fd.reduction.UncentredSVD(int(rng.integers(1, 4)))
    return svd.fit_transform(x), svd.components_, svd.singular_values_, svd.explained_energy_ratio_


def analyse(rng, x, y):
    n = len(y)
    log_density = numbers(rng, n) if rng.random() < 0.3 else wrapped(rng, rng.normal(size=n))
    calls = {
        "bins": lambda: analysis.density_bins(log_density, 2, y),
        "distance": lambda: analysis.neighbour_distance(x, y),
        "pairs": lambda: tuple(analysis.mean_pairwise_distance(batch_of(rng, x, y))),
        "classes": lambda: analysis.class_log_density(log_density, y).mean,
        "auc": lambda: analysis.roc_auc(log_density, y),
        "classification": lambda: analysis.generative_classification(x, y),
        "modes": lambda: analysis.find_modes(log_density),
        "intervals": lambda: analysis.mode_intervals(log_density, y, n_resamples=5),
        "correlation": lambda: analysis.correlate({"a": log_density}, log_density, y, n_resamples=5),
        "memorization": lambda: analysis.memorization_scores(x, x),
    }
    name = str(rng.choice(list(calls)))
    calls[name]()
    # A class of one example has no spread: these may hold NaN, as documented.
    return ()


OPERATIONS = [
    batch_of,
    fit_mixtures,
    fit_mixtures,
    fit_processes,
    fit_variational,
    score_other_points,
    project,
    analyse,
    analyse,
]


def is_ours(error):
    """Whether a line of the package raised the error, in one sentence."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(last.filename, last.lineno)
    by_us = PACKAGE in Path(last.filename).parents or KERNELS in Path(last.filename).parents
    return isinstance(error, TypeError | ValueError) and by_us and "raise" in line and "\n" not in str(error)


def fault(operation, rng, x, y):
    """What is wrong with what comes out, None if nothing is; and whether it is a result."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = operation(rng, x, y)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            return None if is_ours(error) else f"{error!r} from {last}", False
    if isinstance(found, tuple) and not caught and any(bool(part.isnan().any()) for part in tensors(*found)):
        return "NaN", True
    return None, True


@pytest.mark.slow
@pytest.mark.timeout(6000)
def test_whatever_comes_in_a_result_or_one_sentence_comes_out(rng):
    n_results, faults = 0, []
    for number in range(N_INPUTS):
        x, y = data(rng)
        operation = OPERATIONS[rng.integers(len(OPERATIONS))]
        wrong, is_result = fault(operation, rng, x, y)
        n_results += is_result
        if wrong is not None:
            faults.append(f"{number}: {wrong}: {operation.__name__}({x!r}, {y!r})"[:400])
    print(f"{n_results} results")
    assert not faults, "\n\n".join([f"{len(faults)} faults", *faults[:10]])
    assert n_results > N_INPUTS // 20
