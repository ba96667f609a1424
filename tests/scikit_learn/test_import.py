"""What the package needs, and that nothing else needs it."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_loaded_when_it_is_used():
    code = "import sys, fastdens as fd; print('sklearn' in sys.modules); print(fd.sklearn.GaussianMixture())"
    assert run(code).splitlines() == ["False", "GaussianMixture()"]


def test_missing_and_old_versions_are_named():
    attempt = "import fastdens as fd\ntry: fd.sklearn\nexcept ImportError as error: print(error)"
    assert "fastdens[sklearn]" in run(f"import sys; sys.modules['sklearn'] = None\n{attempt}")
    assert run("import sys; sys.modules['sklearn'] = None\nfrom fastdens import *\nprint(GaussianMixtures)")
    old = "import sklearn.utils.validation as v; del v.validate_data"
    assert "1.6 or later" in run(f"{old}\n{attempt}")
