"""The page on densities in networks: its example trains, exports, and loads in a process without this library."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[1] / "docs" / "guides" / "in_networks.md").read_text()


def test_the_example(tmp_path, monkeypatch):
    train, export, reload = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    exec(train + export, names)
    assert names["accuracy"] > 0.93
    code = f"import sys\nsys.modules['fastdens'] = None\n{reload}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
