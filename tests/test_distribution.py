"""The sdist and the wheel: what is in them, and what they are worth without the sources around them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import fastdens as fd

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}


def run(*command: str | Path, cwd: Path) -> str:
    environment = ENVIRONMENT | {"SOURCE_DATE_EPOCH": "1600000000"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, target: Path, *what: str) -> None:
    """Build with the tools of this environment: none is downloaded."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", target, *what, source, cwd=target.parent)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist of a copy of the tree, which is no git repository, and the wheel built from the sdist."""
    folder = tmp_path_factory.mktemp("distribution")
    skip = shutil.ignore_patterns("__pycache__", "corpus", "generated", "results")
    for name in ("benchmarks", "docs", "examples", "fastdens", "kernels", "tests"):
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=skip)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder / "tree")
    build(folder / "tree", folder / "dist")
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_sdist_holds_what_it_takes_to_change_it(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert path.name == f"fastdens-{fd.__version__}.tar.gz"
    wanted = ("Makefile", "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "SECURITY.md")
    assert {*wanted, "kernels/niw.py", "tests/conftest.py", "tests/report/measure_page.js", "docs/paper.md"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "build"))]


@pytest.mark.slow
def test_the_wheel_has_the_files_of_the_packages_and_no_others(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in (("fastdens", "fastdens"), ("kernels", "fastdens/kernels"))
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == sources


@pytest.mark.slow
def test_a_second_build_gives_the_same_bytes(built, wheel, tmp_path):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    build(next(tmp_path.iterdir()), tmp_path / "again", "--wheel")
    assert (tmp_path / "again" / wheel.name).read_bytes() == wheel.read_bytes()


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(wheel, tmp_path):
    """Of what this environment has installed, torch and the others; ``make test-wheel`` installs them anew."""
    run(sys.executable, "-m", "venv", "--without-pip", "environment", cwd=tmp_path)
    python = tmp_path / "environment" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    (site,) = (tmp_path / "environment" / "lib").glob("python*/site-packages")
    # Lines of a path file are searched after the environment itself, and their own path files are not read.
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    shutil.copy(ROOT / "tests" / "wheels" / "smoke.py", tmp_path)
    assert "fastdens works: no extras" in run(python, "smoke.py", cwd=tmp_path)
    command = tmp_path / "environment" / "bin" / "fastdens"
    assert "analyze" in run(command, "--help", cwd=tmp_path)
    assert run(command, "--version", cwd=tmp_path).split()[-1] == fd.__version__
