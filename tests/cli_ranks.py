"""The command on the ranks of a job, for :mod:`tests.test_cli_ranks`."""

from __future__ import annotations

import io
import os
import signal
import time
from contextlib import redirect_stderr, redirect_stdout

import torch.distributed as dist

from fastdens.cli import main as command
from fastdens.distributed import models


def await_models(folder, n_files):
    """Wait until the ranks have written so many files of finished models, for a minute at most."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if len([path for path in folder.glob("models-*.safetensors") if ".chains" not in path.name]) >= n_files:
            return
        time.sleep(0.02)


def main(arguments, dies=False):
    """Exit status, output and errors of the command, and the models that this rank fitted; rank 1 may die."""
    fitted = []
    fit_part = models.fit_part

    def counted(estimator, batch, numbers, **options):
        if dies and dist.get_rank() == 1 and len(fitted) == 2:
            await_models(options["folder"], 3)
            os.kill(os.getpid(), signal.SIGKILL)
        fit = fit_part(estimator, batch, numbers, **options)
        fitted.extend(f"{batch.layer} {m}" for m in numbers.tolist())
        return fit

    models.fit_part = counted
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        status = command(arguments)
    return {"status": status, "output": output.getvalue(), "errors": errors.getvalue(), "fitted": fitted}
