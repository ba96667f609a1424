"""Ranks of a torch.distributed job for tests.

One child process imports the library and a module of checks, and forks the ranks of every job from there: importing
takes longer than most checks.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run_jobs(
    checks: str, folder: Path, jobs: dict[str, tuple[int, list[Any]]], seconds: float = 500, **environment: str
) -> dict[str, Any]:
    """Run jobs one after the other, each of a number of ranks that call ``main(*arguments)`` of the module ``checks``.

    Returns what ``main`` returned on each rank, None for one that was killed, by the name of the job.
    """
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-m", "tests.ranks", checks, str(folder)]
    with (folder / "output.txt").open("w") as output:
        parent = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        parent.wait(seconds)
    finally:
        # Whatever has gone wrong, no rank is left behind.
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
    assert parent.returncode == 0, (folder / "output.txt").read_text()
    return json.loads((folder / "results.json").read_text())


def message_of(error: BaseException) -> str:
    """An error as a result: its type, text and notes."""
    return " | ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])


def raised(block: Callable[[], object]) -> str:
    """The message of what a block raises."""
    try:
        block()
    except BaseException as error:
        return message_of(error)
    return "nothing"


def _run_rank(rank: int, size: int, folder: Path, main: Callable[..., Any], arguments: list[Any]) -> None:
    import torch.distributed as dist

    if namespaces := os.environ.get("FASTDENS_TEST_NAMESPACES"):
        _enter(namespaces.split()[rank])
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
        (folder / f"result-{rank}.json").write_text(json.dumps(main(*arguments)))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    # As a program ends: what the library leaves running must not keep or abort the process.
    sys.exit()


def _enter(namespace: str) -> None:
    """Go to a network namespace, as to another host."""
    with open(f"/var/run/netns/{namespace}") as file:
        assert ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0) == 0, os.strerror(ctypes.get_errno())


def _run_job(size: int, folder: Path, main: Callable[..., Any], arguments: list[Any]) -> list[Any]:
    folder.mkdir()
    ranks = []
    for rank in range(size):
        if (process := os.fork()) == 0:
            _run_rank(rank, size, folder, main, arguments)
        ranks.append(process)
    waiting, failed = set(ranks), False
    while waiting:
        process, status = os.wait()
        waiting.discard(process)
        if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
            failed = True
            # The others may wait for it.
            for other in waiting:
                os.kill(other, signal.SIGKILL)
    if failed:
        raise SystemExit(f"a rank of {folder.name} failed")
    paths = [folder / f"result-{rank}.json" for rank in range(size)]
    return [json.loads(path.read_text()) if path.exists() else None for path in paths]


def _main(checks: str, name: str) -> None:
    folder, results = Path(name), {}
    main = importlib.import_module(checks).main
    for job, (size, arguments) in json.loads((folder / "jobs.json").read_text()).items():
        begin = time.monotonic()
        results[job] = _run_job(size, folder / job, main, arguments)
        print(f"{job}: {time.monotonic() - begin:.1f} s", flush=True)
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    _main(*sys.argv[1:])
