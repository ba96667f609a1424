"""Fits over the ranks of a torch.distributed job: ``docs/guides/memory_and_machines.md`` tells how to start one."""

from __future__ import annotations

from fastdens.distributed.fit import fit
from fastdens.distributed.job import job
from fastdens.distributed.plan import FitPlan, plan
from fastdens.process_group import RankEndedError

__all__ = ["FitPlan", "RankEndedError", "fit", "job", "plan"]
