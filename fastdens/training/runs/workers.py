"""A folder of networks trained by any number of processes together; interrupted work can be resumed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import torch
from torch import Tensor
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, ProcessRaisedException, start_processes

from fastdens.io.locks import claimed, remove_stale_lock
from fastdens.process_group import current_group
from fastdens.progress import Advance, progress_bar
from fastdens.training.datasets import Images
from fastdens.training.recipe import Recipe
from fastdens.training.runs.job import Job
from fastdens.training.runs.plan import TrainingRun
from fastdens.training.runs.store import choose_devices

_SECONDS_BETWEEN_LOOKS = 0.25
# A process that was forked after torch has computed can neither use a GPU nor count on its threads.
_START_METHOD: Final = "spawn"


def train_runs(
    folder: str | os.PathLike[str],
    images: Images,
    labels: Tensor,
    runs: Sequence[TrainingRun],
    recipe: Recipe,
    *,
    processes: int = 1,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> None:
    """Train every network whose file is not in the folder yet.

    Any number of processes may work on one folder: those of ``processes``, and others started by hand with the same
    arguments at any time. Each network is trained by one of them. A process that finds nothing left to train waits for
    the others, and takes over from one that dies. A killed process loses only the network that it was training; the
    next call with the same arguments resumes. In a torch.distributed job all ranks call it, and all stop if one ends.

    Parameters
    ----------
    folder : path-like
        Receives one file per run, ``NAME.safetensors``, with the weights, the predictions, and the identity of the run.
    images : Images
        The data set.
    labels : Tensor
        int64 [N], the labels to train with, in place of ``images.train_labels``.
    runs : sequence of TrainingRun
        The networks; no two have the same name.
    recipe : Recipe
        How to train each.
    processes : int
        1 trains in this process. More start as many others, which share its threads and, in shared memory, the images
        that are not streamed; a script that does so must be importable, its work under ``if __name__ == "__main__":``.
    device : str or torch.device, optional
        By default the GPU, or the GPUs in turn, where there are any.
    progress : bool
        Show a progress bar (in a terminal, needs rich).

    Raises
    ------
    ValueError
        Before training, if runs, labels or images do not fit together, there is no such network, or a file in the
        folder is damaged or belongs to another recipe, other data, or another choice of examples.
    ChildProcessError
        If training failed in one of several processes, and the others were stopped, or if all of them were killed. With
        one process the exception itself is raised.
    OSError
        If a file cannot be written, ``folder`` is a file, or shared memory is too small for the images.
    ImportError
        If safetensors, filelock or torchvision is missing, or rich is and ``progress`` is True.

    Notes
    -----
    A network is the same, bit for bit, whichever process trains it on the same kind of device with the same number of
    threads. Each of K processes has a K-th of the threads of this one.
    """
    job = Job.create(Path(folder), images, labels, runs, recipe)
    if processes < 1:
        raise ValueError(f"processes is {processes}, but something has to train: pass 1 or more.")
    if job.folder.exists() and not job.folder.is_dir():
        raise NotADirectoryError(f"{job.folder} is a file, but the networks need a folder: pass another path.")
    job.folder.mkdir(parents=True, exist_ok=True)
    group = current_group()
    with group.together():
        _complete(job, processes, device, progress=progress and group.rank == 0)


def _complete(job: Job, processes: int, device: str | torch.device | None, *, progress: bool) -> None:
    """Check the files that are there, and train the others."""
    missing = job.missing()
    names = {run.name for run in missing}
    for run in job.runs:
        if run.name not in names:
            job.check(run)
    n_processes, devices = min(processes, len(missing)), choose_devices(device)
    try:
        with progress_bar("Networks", len(job.runs), done=len(job.runs) - len(missing), shown=progress) as advance:
            if n_processes <= 1:
                _train_missing(job, len(missing), devices[0], advance)
            else:
                _train_in_processes(job.in_shared_memory(), len(missing), n_processes, devices, advance)
    finally:
        for run in job.runs:
            remove_stale_lock(job.path(run))
    # Other processes may have been asked for something else.
    for run in missing:
        job.check(run)


def _train_missing(job: Job, n_missing: int, device: torch.device, advance: Advance) -> None:
    """Train the runs that no other process is training, until every run has its file."""
    for missing in _until_complete(job, n_missing, advance):
        if not any(_train_if_free(job, run, device, advance) for run in missing):
            advance(0, f"{len(missing)} are being trained by other processes")
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _until_complete(job: Job, n_missing: int, advance: Advance) -> Iterator[list[TrainingRun]]:
    """The runs that have no file, again and again while there are any; each counts once it has one."""
    while n_missing:
        missing = job.missing()
        advance(n_missing - len(missing))
        n_missing = len(missing)
        if missing:
            yield missing


def _train_if_free(job: Job, run: TrainingRun, device: torch.device, advance: Advance) -> bool:
    """Train a run unless another process is training it; return whether its file exists now."""
    with claimed(job.path(run)) as is_mine:
        if is_mine and not job.path(run).exists():
            advance(0, run.name)
            try:
                job.train_run(run, device)
            except Exception as error:
                error.add_note(f"in the training of {job.path(run)}")
                raise
        return is_mine


def _train_in_processes(
    job: Job, n_missing: int, n_processes: int, devices: list[torch.device], advance: Advance
) -> None:
    """Start processes that train the missing runs, and watch over them until every run has its file.

    Each has a context of its own: in a common one, torch stops all when one of them is killed, whereas here the others
    take over its network.
    """
    n_threads = max(1, torch.get_num_threads() // n_processes)
    running: list[ProcessContext] = []
    try:
        with _interrupts_held():
            for k in range(n_processes):
                arguments = (job, devices[k % len(devices)], n_threads)
                # Not daemons, which may have no processes of their own that decode images; each ends with its parent.
                options = {"join": False, "daemon": False, "start_method": _START_METHOD}
                running.append(start_processes(_work, arguments, **options))  # type: ignore[no-untyped-call]
        exit_codes: list[int] = []
        for _ in _until_complete(job, n_missing, advance):
            for context in list(running):
                try:
                    if context.join(timeout=0):
                        running.remove(context)
                except ProcessRaisedException as error:
                    raise ChildProcessError(_last_line(error)) from None
                except ProcessExitedException as error:
                    running.remove(context)
                    exit_codes.append(error.exit_code)
                    advance(0, f"{len(exit_codes)} of {n_processes} processes died")
            if not running and (missing := job.missing()):
                raise ChildProcessError(
                    f"{len(missing)} of {len(job.names)} networks are not in {job.folder} because the processes that "
                    f"trained them died (exit codes {exit_codes}): call again, with fewer processes if memory ran out."
                )
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        # A killed process leaves nothing that matters: a network has its file whole or not at all.
        for context in running:
            for process in context.processes:
                process.kill()
                process.join()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, and never reaches processes started in it: their parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(_index: int, job: Job, device: torch.device, n_threads: int) -> None:
    """Train the missing runs, as the work of a child process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(n_threads)
    try:
        _train_missing(job, len(job.missing()), device, lambda steps=1, note=None: None)
    except Exception as error:
        # One line: the parent quotes the last one of the traceback.
        reason = " ".join([f"{type(error).__name__}: {error},", *getattr(error, "__notes__", [])])
        raise ChildProcessError(
            f"a training process failed with {' '.join(reason.split())}: remove the cause and call again."
        ) from error


def _last_line(error: ProcessRaisedException) -> str:
    return str(error).rstrip().rpartition("\n")[2].removeprefix("ChildProcessError: ")


def _end_with_parent() -> NoReturn:
    """End this process when its parent is killed; torch's pool does so on Linux alone, by an interrupt."""
    parent = torch.multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
