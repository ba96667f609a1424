"""Coverage-guided fuzzing of a reader, or of all in turn: ``python -m tests.fuzz TARGET --seconds 60``.

It begins from the files of the corpus and keeps new ones that reach other code. A file that does what no reader may do
is kept beside the corpus, as ``found-TARGET-...``, and ends the run.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

CORPUS = Path(__file__).parent / "corpus"
LONGEST = 4096

with atheris.instrument_imports(include=["fastdens", "numpy.lib", "zipfile", "pickletools", "torchvision.datasets"]):
    from tests.fuzz.targets import SECONDS, TARGETS, fault


def main() -> None:
    """Fuzz the target that the arguments name, in a process of its own: libFuzzer ends the one that it runs in."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep-going", action="store_true", help="keep each kind of fault and go on")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        fuzz(options)
        return
    rest = [argument for argument in sys.argv[1:] if argument != options.target]
    status = 0
    for name in TARGETS if options.target == "all" else [options.target]:
        with tempfile.TemporaryDirectory(prefix="fastdens-fuzz-") as work:
            failed = subprocess.call([sys.executable, "-m", "tests.fuzz", name, *rest, "--work", work])
        status = status or failed
    sys.exit(status)


def fuzz(options: argparse.Namespace) -> None:
    """Run libFuzzer, which does not return."""
    target, corpus, work = TARGETS[options.target], CORPUS / options.target, options.work
    known: set[str] = set()

    def test_one_input(content: bytes) -> None:
        wrong = fault(target, content, work / "folder")
        kind = wrong and wrong.rpartition(", from ")[2]
        if kind is None or kind in known:
            return
        known.add(kind)
        name = f"found-{options.target}-{hashlib.sha1(content).hexdigest()[:8]}"
        (CORPUS / name).write_bytes(content)
        print(f"\n{name}: {wrong}", flush=True)
        if not options.keep_going:
            raise AssertionError(wrong)

    seeds = work / "seeds"
    for folder in (seeds, corpus):
        folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(target.seeds()):
        (seeds / str(number)).write_bytes(content)
        test_one_input(content)
    arguments = [sys.argv[0], f"-timeout={2 * SECONDS:.0f}", f"-max_len={LONGEST}", f"-artifact_prefix={CORPUS}/found-"]
    arguments += ["-rss_limit_mb=3000", "-print_final_stats=1"]
    arguments += [f"-max_total_time={options.seconds}", str(corpus), str(seeds)]
    atheris.Setup(arguments, test_one_input)
    atheris.Fuzz()


main()
