"""A plan in words and in numbers: each stage with its estimated time, the total, and what the estimates come from."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from fastdens.pipeline.costs import Costs
from fastdens.pipeline.plan import Plan
from fastdens.progress import about

_WIDTH, _LINE, _INDENT = 60, 100, " " * 6
# Files and arrays under a gigabyte are no concern.
_LARGE = 1.0


def describe_plan(plan: Plan, costs: Costs) -> str:
    """The plan as lines of text.

    Parameters
    ----------
    plan : Plan
    costs : Costs
        Of all kinds of work of the plan.
    """
    lines = [f"Plan of {plan.title}. Nothing has been done.", ""]
    total = most = 0.0
    for number, step in enumerate(plan.steps, start=1):
        seconds = costs.of(step.stage.work)
        total, most = total + seconds, most + seconds * step.most
        lines.append(f"{number:2}  {step.stage.title:<{_WIDTH}}{_range(seconds, step.most)}")
        for detail in step.details:
            lines += wrap(detail, _LINE, initial_indent=_INDENT, subsequent_indent=_INDENT)
    lines += ["", f"{'    In all':<{_WIDTH + 4}}{_range(total, most / total if total else 1.0)}"]
    if most > total:
        lines.append("    The longer time is that of chains that never agree, which stop at their most sweeps.")
    for what, size in (("Files of networks", plan.disk), ("Images and activations in memory", plan.memory)):
        if size >= _LARGE:
            lines.append(f"    {what}: {size:.1f} GB")
    lines += ["", "Estimated on this machine, with what else it was doing, from"]
    lines += [f"    {kind}: {measured}" for kind, measured in costs.measured.items()]
    if plan.layers:
        lines.append("Densities were measured on clusters of random points.")
    lines.append("A time may be off by a factor of two.")
    return "\n".join(lines)


def plan_in_numbers(plan: Plan, costs: Costs) -> dict[str, Any]:
    """The same for a program: seconds of each stage and in all, at least and at most, and gigabytes.

    Parameters
    ----------
    plan, costs
        As of :func:`describe_plan`.
    """
    stages = [
        {
            "name": step.stage.name,
            "title": step.stage.title,
            "details": step.details,
            "work": step.stage.work,
            "seconds": (seconds := costs.of(step.stage.work)),
            "seconds_at_most": seconds * step.most,
        }
        for step in plan.steps
    ]
    return {
        "plan": plan.title,
        "stages": stages,
        "seconds": sum(stage["seconds"] for stage in stages),
        "seconds_at_most": sum(stage["seconds_at_most"] for stage in stages),
        "gigabytes_on_disk": plan.disk,
        "gigabytes_in_memory": plan.memory,
        "measured": costs.measured,
    }


def _range(seconds: float, most: float) -> str:
    """An estimate in words, up to so many times as long."""
    text = about(seconds)
    return text if most <= 1 else f"{text} to {about(seconds * most).removeprefix('about ')}"
