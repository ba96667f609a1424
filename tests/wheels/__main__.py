"""Install a wheel in empty environments and try it there, on every Python that is found; see CONTRIBUTING.md."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = ("analysis", "cpu", "sklearn", "storage")
# What is installed beside the wheel: nothing but what every installation needs, or all extras at their ends.
PACKAGES = {"bare": ((), "highest"), "lowest": (EXTRAS, "lowest-direct"), "newest": (EXTRAS, "highest")}


def find_python(version: str) -> str | None:
    """An interpreter of this version that runs, on the path or of pyenv."""
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    for candidate in (shutil.which(f"python{version}"), *map(str, of_pyenv)):
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return None


def find_uv() -> str:
    """The resolver that knows how to find the lowest packages."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = shutil.which("uv", path=path)
    if found is None:
        sys.exit("uv is not installed, which makes the environments: pip install uv.")
    return found


def try_wheel(wheel: Path, python: str, packages: str, folder: Path) -> None:
    """Make an environment in the folder, install the wheel in it and run ``smoke.py`` there."""
    uv, (extras, resolution) = find_uv(), PACKAGES[packages]
    environment, requirements = folder / "environment", folder / "requirements.txt"
    inside = environment / "bin" / "python"

    def run(*command: str | Path) -> None:
        # Outside of the sources, so that none of them is imported.
        subprocess.run([str(part) for part in command], cwd=folder, check=True)

    run(uv, "venv", "--quiet", "--python", python, environment)
    # The dependencies are asked for by name: only then are the lowest of them their own lower bounds.
    wanted = [option for extra in extras for option in ("--extra", extra)]
    options = ["--quiet", "--only-binary", ":all:", "--resolution", resolution, "--python", inside]
    run(uv, "pip", "compile", *options, *wanted, "-o", requirements, ROOT / "pyproject.toml")
    run(uv, "pip", "install", "--quiet", "--only-binary", ":all:", "--python", inside, "-r", requirements)
    run(uv, "pip", "install", "--quiet", "--no-deps", "--python", inside, wheel)
    smoke = shutil.copy(Path(__file__).with_name("smoke.py"), folder)
    run(inside, smoke, *extras)


def main() -> None:
    """Try the one wheel in a folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.wheels", description=__doc__)
    parser.add_argument("folder", type=Path, help="with one wheel in it, as `make dist` leaves it")
    parser.add_argument("--python", nargs="+", default=PYTHONS, help="versions (default: %(default)s, those found)")
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    arguments = parser.parse_args()
    (wheel,) = arguments.folder.resolve().glob("*.whl")
    found = {version: find_python(version) for version in arguments.python}
    for version, python in found.items():
        if python is None:
            print(f"Python {version} is not installed: left out.")
            continue
        for packages in arguments.packages:
            print(f"Python {version}, {packages} packages", flush=True)
            start = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="fastdens-wheel-") as folder:
                try_wheel(wheel, python, packages, Path(folder))
            print(f"{time.monotonic() - start:.0f} s", flush=True)
    if not any(found.values()):
        sys.exit("No Python to try the wheel on.")


if __name__ == "__main__":
    main()
