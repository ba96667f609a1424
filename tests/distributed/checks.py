"""What ranks fit together in the tests of ``fd.distributed``; ``main`` returns what each of them saw."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import torch

import fastdens as fd
import fastdens.distributed.models
from fastdens.io.state_file import fingerprint
from fastdens.mixtures.parts import fit_part
from fastdens.process_group import current_group
from tests.ranks import raised

QUICK = {"n_sweeps": 12, "burn_in": 8, "thin": 2, "progress": False}


def batch_of(seed: int, n_models: int = 11, failing: bool = True) -> fd.RaggedBatch:
    """Models of 12 to 60 points, their rows out of order; one has NaN, one has a feature that does not vary."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(12, 60, (n_models,), generator=generator)
    labels = torch.repeat_interleave(torch.arange(n_models), sizes)
    x = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64) + labels[:, None]
    x[labels == 4, 1] = 7.0
    if failing:
        x[int((labels == 5).nonzero()[3])] = torch.nan
    order = torch.randperm(len(labels), generator=generator)
    return fd.RaggedBatch.from_labels(x[order], labels[order], layer="layer2")


def estimators(batch: fd.RaggedBatch) -> dict[str, Any]:
    resp = torch.rand(len(batch.points), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(len(batch.points)) % 3
    skip = {"on_error": "skip"}
    return {
        "full": fd.GaussianMixtures(3, max_iter=20, **skip),
        "tied": fd.GaussianMixtures(2, covariance_type="tied", n_init=2, max_iter=5, reg_covar=0, **skip),
        "factors": fd.FactorAnalyserMixtures(2, 1, max_iter=5, **skip),
        "gibbs": fd.DirichletProcessMixtures(**QUICK, n_chains=2, **skip),
        "labels": fd.DirichletProcessMixtures(**QUICK, labels_init=labels, **skip),
        "variational": fd.VariationalDirichletProcessMixtures(
            truncation=4, max_iter=9, resp_init=resp / resp.sum(1, keepdim=True), **skip
        ),
    }


def difference(one: Any, other: Any) -> str:
    """The first attribute of a fit that differs, to the last bit; empty if none does."""
    (tensors, facts), (other_tensors, other_facts) = one.get_state(), other.get_state()
    if facts != other_facts or tensors.keys() != other_tensors.keys():
        return f"{facts} {sorted(tensors)} are not {other_facts} {sorted(other_tensors)}"
    for name, value in tensors.items():
        same = value.dtype == other_tensors[name].dtype and torch.equal(
            value.nan_to_num(1e9), other_tensors[name].nan_to_num(1e9)
        )
        if not same:
            return name
    return ""


def models(seed: int) -> dict[str, Any]:
    """Fits over all ranks beside those of one process."""
    group = current_group()
    batch = batch_of(seed)
    found: dict[str, Any] = {}
    for name, estimator in estimators(batch).items():
        held_out = {"held_out": fd.RaggedBatch.from_list([batch.points[:2]] * 11)} if name == "gibbs" else {}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            gather = "rank0" if name == "tied" else "all"
            result = fd.distributed.fit(estimator, batch, gather=gather, **held_out)
        assert result is estimator
        found[f"{name} warns"] = [str(w.message) for w in told]
        if name == "tied" and group.rank > 0:
            assert not hasattr(estimator, "means_")
            continue
        tensors, facts = estimator.get_state()
        found[f"{name} state"] = [fingerprint(tensors[key] for key in sorted(tensors)), repr(facts)]
        if group.rank == 0:
            own = estimators(batch)[name]
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                own.fit(batch, **held_out)
            found[f"{name} expected"] = [str(w.message) for w in told]
            found[name] = difference(estimator, own)
    return found


def errors(seed: int) -> dict[str, Any]:
    """What is raised, with the same words on every rank."""
    batch = batch_of(seed)
    clean = batch_of(seed, failing=False)
    rank = current_group().rank

    def fit(estimator: Any, batch: fd.RaggedBatch, **options: Any) -> str:
        return raised(lambda: fd.distributed.fit(estimator, batch, **options)).partition(" | ")[0]

    late = fd.GaussianMixtures(2, reg_covar=0)
    return {
        "found before": fit(fd.GaussianMixtures(2), batch),
        "found before, alone": raised(lambda: fd.GaussianMixtures(2).fit(batch)),
        "found late": fit(late, clean),
        "found late at rank 0": fit(late, clean, gather="rank0"),
        "found late, alone": raised(lambda: late.fit(clean)),
        "parameter": fit(fd.GaussianMixtures(0), clean),
        "other batch": fit(fd.GaussianMixtures(1), batch_of(seed + (rank == 1), failing=False)),
        "other weights": fit(fd.GaussianMixtures(1), clean.weighted(torch.full((clean.n_points,), 1.0 + (rank == 1)))),
        "other estimator": fit(fd.GaussianMixtures(1, tol=0.1 if rank == 1 else 0.2), clean),
        "other last fit": after_rank0(clean),
        "goes on": raised(lambda: fd.distributed.fit(fd.GaussianMixtures(1), clean)),
    }


def after_rank0(batch: fd.RaggedBatch) -> str:
    """A warm start after a fit that only rank 0 knows."""
    warm = fd.GaussianMixtures(2, max_iter=2, tol=0, warm_start=True)
    fd.distributed.fit(warm, batch, gather="rank0")
    return raised(lambda: fd.distributed.fit(warm, batch)).partition(" | ")[0]


def with_checkpoint(seed: int, folder: str, dying: int | None) -> dict[str, Any]:
    """A fit that keeps its models; a rank may kill itself after its second part."""
    group = current_group()
    fitted: list[list[int]] = []

    def noted(estimator: Any, batch: fd.RaggedBatch, models: torch.Tensor, **options: Any) -> Any:
        fit = fit_part(estimator, batch, models, **options)
        fitted.append(models.tolist())
        if group.rank == dying and len(fitted) == 2:
            Path(folder, "..", f"fitted-by-{dying}.txt").write_text(repr(fitted))
            os.kill(os.getpid(), signal.SIGKILL)
        if dying is not None and len(fitted) == 2:
            # In the midst of a computation.
            while True:
                time.sleep(0.01)
        return fit

    fastdens.distributed.models.fit_part = noted
    batch = batch_of(seed, n_models=90)
    estimator = fd.DirichletProcessMixtures(**QUICK, on_error="skip")
    begin = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = raised(lambda: fd.distributed.fit(estimator, batch, checkpoint=folder))
        seconds = time.monotonic() - begin
        same = None
        if error == "nothing":
            same = difference(estimator, fd.DirichletProcessMixtures(**QUICK, on_error="skip").fit(batch))
    return {"error": error, "seconds": seconds, "fitted": fitted, "difference": same}


def points(seed: int, folder: str) -> dict[str, Any]:
    """One large model and a smaller one, their points divided; what comes of it is kept by rank 0 in a file."""
    group = current_group()
    generator = torch.Generator().manual_seed(seed)
    sizes = (9000, 2500)
    x = torch.randn(sum(sizes), 4, dtype=torch.float64, generator=generator)
    x += 1.5 * torch.randint(0, 3, (len(x), 1), generator=generator)
    labels = torch.repeat_interleave(torch.tensor([0, 1]), torch.tensor(sizes))
    order = torch.randperm(len(x), generator=generator)
    batch = fd.RaggedBatch.from_labels(x[order] + 100, labels[order])
    few = {"max_iter": 5, "tol": 1e-9}
    start = torch.rand(len(x), 3, dtype=torch.float64, generator=generator)
    resp = start / start.sum(1, keepdim=True)
    weights = [[0.2, 0.3, 0.5]] * 2
    made: dict[str, Any] = {
        "full": lambda: fd.GaussianMixtures(3, n_init=2, **few),
        "tied": lambda: fd.GaussianMixtures(3, covariance_type="tied", init_params="random_from_data", **few),
        "diag": lambda: fd.GaussianMixtures(3, covariance_type="diag", init_params="random", **few),
        "spherical": lambda: fd.GaussianMixtures(3, covariance_type="spherical", weights_init=weights, **few),
        "variational": lambda: fd.VariationalDirichletProcessMixtures(truncation=4, **few),
        "given": lambda: fd.VariationalDirichletProcessMixtures(truncation=3, resp_init=resp, **few),
        "kmeans": lambda: fd.GaussianMixtures(3, init_params="kmeans", **few),
        "weighted": lambda: fd.GaussianMixtures(3, **few),
        "weighted variational": lambda: fd.VariationalDirichletProcessMixtures(truncation=4, **few),
    }
    weight = torch.randint(0, 3, (len(x),), generator=generator) * torch.where(labels[order] == 0, 1.0, 0.3)
    found: dict[str, Any] = {}
    for name, make in made.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            own = batch.weighted(weight) if name.startswith("weighted") else batch
            split = fd.distributed.fit(make(), own, split="points")
            if group.rank == 0:
                split.save(f"{folder}/{name}-{group.size}.safetensors")
            if group.size == 1:
                make().fit(own).save(f"{folder}/{name}-whole.safetensors")
    bad = fd.GaussianMixtures(2, reg_covar=0)
    flat = fd.RaggedBatch.from_list([torch.ones(2000, 3, dtype=torch.float64)])
    found["bad"] = raised(lambda: fd.distributed.fit(bad, flat, split="points")).partition(" | ")[0]
    found["bad, alone"] = raised(lambda: bad.fit(flat))
    found["gibbs"] = raised(lambda: fd.distributed.fit(fd.DirichletProcessMixtures(**QUICK), batch, split="points"))
    again = fd.distributed.fit(fd.GaussianMixtures(1), batch, split="points", gather="rank0")
    found["goes on"] = hasattr(again, "means_")
    return found


def main(what: str, *arguments: Any) -> dict[str, Any]:
    return globals()[what](*arguments)
