"""The ranks of a torch.distributed job: what they send each other, and what happens when one of them ends.

Whoever started the job (torchrun, Slurm, Ray, Lightning) has made the process group; :func:`current_group` finds it, or
is a group of this process alone. Nothing that arrives is unpickled.
"""

from __future__ import annotations

from fastdens.process_group.errors import RankEndedError
from fastdens.process_group.group import Group, current_group

__all__ = ["Group", "RankEndedError", "current_group"]
