"""What the command prints and how it ends: text, JSON or nothing; exit statuses, signals, pipes, completion."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import warnings
from contextlib import suppress
from functools import partial

import numpy as np
import pytest

import fastdens as fd
from fastdens.cli import entry, main, make_app
from fastdens.cli.app import COMMANDS
from fastdens.cli.output import FORMAT, Output
from tests.command_page import PAGE, names_of
from tests.terminals import in_terminal, lines_left


@pytest.fixture
def scores(tmp_path):
    """A file of ninety scores, of classes one of which has an odd name."""
    labels = np.repeat(["cat", "dog", "\x1b[31meel"], [40, 30, 20])
    values = np.linspace(0, 1, 90)
    np.savez(tmp_path / "scores.npz", tr_mem=values, tr_labels=labels)
    return tmp_path / "scores.npz"


def told(capsys, *arguments, status=0):
    """What a command prints on stdout and stderr."""
    assert main([*map(str, arguments)]) == status
    return capsys.readouterr()


def test_a_document_is_all_that_json_prints(scores, capsys):
    text = told(capsys, "scores", scores)
    assert text.out.startswith("examples with a score: 90\n") and text.err == ""
    out, err = told(capsys, "scores", scores, "--json")
    # Names cannot command a terminal here either.
    assert err == "" and out.isascii() and out.replace("\n", "").isprintable()
    document = json.loads(out, parse_constant=pytest.fail)
    assert (document["format"], document["command"], document["version"]) == (FORMAT, "scores", fd.__version__)
    assert document.keys() == names_of("`scores` adds:")
    assert document["file"] == str(scores) and document["warnings"] == []
    assert document["examples_with_a_score"] == 90 and document["mean_score"] == pytest.approx(0.5)
    # There are no thousand scores.
    assert document["highest_scores"] == {"examples": 1000, "from": None}
    means = document["mean_score_of_class"]
    assert list(means) == ["\x1b[31meel", "cat", "dog"]
    assert f"cat ({means['cat']:.3f})" in text.out


def test_quiet_prints_nothing_but_errors(scores, capsys):
    assert told(capsys, "scores", scores, "--quiet") == ("", "")
    assert json.loads(told(capsys, "scores", scores, "-q", "--json").out)["examples_with_a_score"] == 90
    out, err = told(capsys, "scores", scores.with_name("nowhere.npz"), "--quiet", "--json", status=1)
    assert out == "" and err.startswith("fastdens: there is no file") and err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_command_has_the_options_of_output(command):
    # A command that was added without them would print what a program cannot read.
    arguments = make_app()[command.__name__].assemble_argument_collection()
    names = {name for argument in arguments for name in argument.names}
    assert {"--quiet", "-q", "--json"} <= names and "--no-quiet" not in names


def test_warnings_are_sentences_on_stderr_and_in_the_document(capsys):
    def warn(output):
        with output.heard():
            warnings.warn("3 of 10 models\n did not converge.", fd.ConvergenceWarning, stacklevel=1)
            output.line("text")
            output.document("scores", value=np.float64(np.inf), values=np.arange(2), path=None)
        return capsys.readouterr()

    sentence = "3 of 10 models did not converge."
    assert warn(Output()) == ("text\n", f"fastdens: warning: {sentence}\n")
    assert warn(Output(quiet=True)) == ("", "")
    out, err = warn(Output(json=True))
    assert err == f"fastdens: warning: {sentence}\n"
    document = json.loads(out)
    assert (document["warnings"], document["value"], document["values"]) == ([sentence], None, [0, 1])
    # Each command has its own.
    with Output(json=True).heard():
        Output(json=True).document("scores")
    assert json.loads(capsys.readouterr().out)["warnings"] == []


def test_a_plan_is_a_document(tmp_path, capsys, monkeypatch):
    options = ["--dataset", "digits", "--networks", "2", "--epochs", "1", "--width", "4", "--image-size", "8"]
    monkeypatch.setattr("fastdens.cli.memorization.measure_costs", lambda *_: Costs())

    class Costs:
        measured = {"training image": "2 steps"}  # noqa: RUF012

        def of(self, work):
            return 3.0 * sum(work.values())

    document = json.loads(told(capsys, "memorization", *options, "--plan", "--json").out)
    assert document.keys() == names_of("`analyze --plan` and `memorization --plan` have in place of these:")
    (stage,) = document["stages"]
    assert document["command"] == "memorization --plan" and document["seconds"] == stage["seconds"]
    assert stage["seconds"] == 3.0 * sum(stage["work"].values()) > 0
    assert stage["title"] == "training 2 networks for memorization" and document["measured"] == Costs.measured
    assert stage["seconds_at_most"] == document["seconds_at_most"] == stage["seconds"]


def test_the_version_and_the_help(capsys):
    assert told(capsys, "--version") == (f"fastdens {fd.__version__}\n", "")
    helps = [told(capsys, *arguments).out for arguments in ([], ["--help"], ["-h"])]
    assert helps[0] == helps[1] == helps[2] and all(command.__name__ in helps[0] for command in COMMANDS)


@pytest.mark.parametrize("columns", [80, 40])
def test_the_help_fits_the_terminal(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in ("", *(command.__name__ for command in COMMANDS)):
        lines = told(capsys, *command.split(), "--help").out.splitlines()
        assert max(map(len, lines)) <= columns


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["analyz"], 'Unknown command "analyz". Did you mean "analyze"?'),
        (["scores"], "FILE"),
        (["scores", "a.npz", "--josn"], "Unknown option: --josn. Did you mean --json?"),
        (["report", "a", "b", "c"], "b"),
        (["--install-completion", "--shell", "tcsh"], "tcsh"),
    ],
)
def test_a_usage_error_has_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and message in err and err.count("\n") == 1


def test_python_m_fastdens_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fastdens", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("fastdens", run_name="__main__")
    assert stop.value.code == 0 and "memorization" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted."),
        (MemoryError(), 1, "there is not enough memory"),
        (RuntimeError("odd"), 70, "this is a fault of fastdens, please report it (RuntimeError: odd)"),
        (PermissionError(13, "Permission denied", "a.npz"), 1, "a.npz cannot be used (Permission denied)"),
    ],
)
def test_an_error_has_a_status_and_a_sentence(error, status, message, capsys, monkeypatch, scores):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("fastdens.cli.scores.read_memorization_scores", fails)
    out, err = told(capsys, "scores", scores, "--json", status=status)
    assert out == "" and err.startswith(f"fastdens: {message}") and err.count("\n") == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_that_work_goes_on(number, status, tmp_path, capsys, monkeypatch, request):
    # A process in the background of a shell begins with Ctrl-C ignored.
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("fastdens.pipeline.experiment.train_runs", lambda *_, **__: os.kill(os.getpid(), number))
    _, err = told(capsys, "analyze", "--output", tmp_path / "out", status=status)
    words = {130: "interrupted", 143: "terminated"}[status]
    assert err.endswith(f"fastdens: {words}; what is finished is kept: the same command goes on from there.\n")


def test_closed_streams(scores, capsys, monkeypatch):
    with monkeypatch.context() as closed:
        closed.setattr("sys.stdout", None)
        assert main(["scores", str(scores)]) == 0
        assert main(["scores", str(scores), "--json"]) == 1
    assert capsys.readouterr().err.startswith("fastdens: --json asks for a document on the standard output, which is")
    with monkeypatch.context() as closed:
        closed.setattr("sys.stderr", None)
        assert main(["scores", "nowhere.npz"]) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_outputs_that_are_full_or_not_read(scores):
    full = "fastdens: the standard output cannot be written (No space left on device): make room, or redirect it.\n"
    command = f"'{sys.executable}' -m fastdens scores '{scores}'"
    for code, expected in (
        (f"{command} > /dev/full; echo $?", ("1\n", full)),
        (f"{command} | true; echo ${{PIPESTATUS[0]}}", ("0\n", "")),
    ):
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == expected


@pytest.mark.slow
def test_an_interrupt_leaves_a_terminal_clean(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "acts").mkdir()
    np.save(tmp_path / "acts" / "deep.npy", rng.normal(size=(600, 8)).astype(np.float32))
    np.save(tmp_path / "acts" / "labels.npy", np.repeat(np.arange(6), 100))
    seen = []

    def interrupt(process, shown):
        if "Gibbs sweeps" in shown and not seen:
            seen.append(process)
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGINT)

    command = [sys.executable, "-m", "fastdens", "analyze", "--activations", str(tmp_path / "acts"), "--sweeps"]
    command += ["20000", "--stop", "sweeps", "--output", str(tmp_path / "out")]
    shown, status = in_terminal(command, columns=60, on_output=interrupt)
    lines = lines_left(shown)
    assert status == 130 and seen and shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")
    sentence = "fastdens: interrupted; what is finished is kept: the same command goes on from there."
    assert lines[-1] == sentence and lines[-2].startswith("Gibbs sweeps") and len(lines[-2]) <= 60
    assert not any("Traceback" in line for line in lines)


COMPLETE = """
source "$SCRIPT"
words=({words})
COMP_WORDS=("${{words[@]}}"); COMP_CWORD=$((${{#words[@]}} - 1)); COMP_LINE="${{words[*]}}"; COMP_POINT=${{#COMP_LINE}}
function=$(complete -p fastdens | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function fastdens "${{words[-1]}}" "${{words[-2]}}"
echo "${{COMPREPLY[@]}}"
"""


def test_bash_completes_commands_options_and_values(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    script = tmp_path / "fastdens.bash"
    assert "installed to" in told(capsys, "--install-completion", "--shell", "bash", "--output", script).out
    assert str(script) in (tmp_path / ".bashrc").read_text()

    def completed(words):
        environment = {**os.environ, "SCRIPT": str(script)}
        code = COMPLETE.format(words=words)
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=environment).stdout.split()

    assert completed("fastdens ana") == ["analyze"]
    assert completed("fastdens analyze --chai") == ["--chains"]
    assert completed('fastdens analyze --density ""') == ["dp", "gmm"]
    assert {"--quiet", "--json", "--labels"} <= set(completed("fastdens scores --"))


@pytest.mark.parametrize("shell_name", ["zsh", "fish", "powershell"])
def test_other_shells_have_a_script(shell_name):
    script = make_app().generate_completion(shell=shell_name)
    assert "analyze" in script and re.search(r"install-completion", script)


def test_exit_statuses_are_those_of_the_page():
    (table,) = re.findall(r"^\| status \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE, re.M)
    statuses = (entry.DONE, entry.ERROR, entry.USAGE, entry.FAULT, entry.INTERRUPTED, entry.TERMINATED)
    assert [int(row.split("|")[1]) for row in table.splitlines()] == [*statuses]
    assert all(f"| `fastdens {command.__name__}" in PAGE for command in COMMANDS)
