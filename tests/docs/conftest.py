"""The site, built once for all tests of it, in whichever process asks first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.docs.site import Page, read_site

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the built site; what Sphinx said lies beside it, in site.log."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, log = shared / "site", shared / "site.log"
    with FileLock(shared / "site.lock"):
        if not log.exists():
            command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
            command += ["-d", str(shared / "doctrees"), str(REPOSITORY / "docs"), str(folder)]
            done = subprocess.run(
                command, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False
            )
            log.write_text(f"{done.returncode}\n{done.stdout}{done.stderr}")
    return folder


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[str, Page]:
    """The pages of the site."""
    return read_site(site)
