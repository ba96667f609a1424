"""Libraries that do what a test wants, and a fastdens that takes no time to compile."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from fastdens.bench.cases import Case, Peer, Run
from fastdens.bench.timing import Budget

BUDGET = Budget(seconds=0.01, rounds=2, patience=1.0, max_bytes=10**6)


def means(case: Case) -> Tensor:
    """What all are asked for: the mean of the points of each model."""
    return case.points.double().mean((1, 2)) + 5


def library(
    name: str,
    em: Callable[[Case], Run],
    *,
    module: str = "torch",
    holds: int | None = None,
    variants: tuple[str, ...] = ("full", "diag"),
) -> Peer:
    limits = {} if holds is None else {"em": lambda case: holds * case.problem.n_models}
    beyond = f"{name} does more."
    return Peer(name, f"{name}==1.0", module, beyond, {"em": em}, variants={"em": variants}, holds=limits)


def agreeing(case: Case) -> Run:
    return Run(lambda: means(case), lambda made: made, note="a note")


def disagreeing(case: Case) -> Run:
    return Run(lambda: means(case), lambda made: made + 1)


def failing(case: Case) -> Run:
    def work() -> None:
        raise ArithmeticError("a matrix is  not\npositive definite" + ", really" * 20)

    return Run(work, lambda made: made)


def slow(case: Case) -> Run:
    """Four milliseconds a model, and as many for what it cannot leave out."""

    def wait() -> Tensor:
        time.sleep(0.004 * case.problem.n_models)
        return means(case)

    return Run(wait, lambda made: made)


def infinite(case: Case) -> Run:
    return Run(lambda: means(case), lambda made: torch.full_like(made, torch.inf))


OURS = library("fastdens", agreeing)
PEERS = (
    library("agreeing", agreeing),
    library("disagreeing", disagreeing),
    library("infinite", infinite),
    library("failing", failing),
    library("lacking", agreeing, variants=("tied",)),
    library("missing", agreeing, module="no_such_module_anywhere"),
    library("slow", slow),
    library("large", agreeing, holds=10**7),
    library("largish", agreeing, holds=10**5),
    Peer("other", "other==1.0", "torch", "It does other things."),
)
