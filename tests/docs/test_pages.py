"""Every page runs: its Python blocks, in order, in an empty folder, print and give what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import blocks_of, check_output, check_shape, run_page

ROOT = Path(__file__).parents[2]
# Its last block runs in another process, without this library: tests/test_in_networks_page.py does that.
ELSEWHERE = {"docs/guides/in_networks.md"}
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if page not in ELSEWHERE and blocks_of(text)])
def test_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(ROOT / page, PAGES[page])


def test_the_guides_have_code_that_runs():
    running = {page for page, text in PAGES.items() if blocks_of(text)}
    assert running >= ELSEWHERE | {"README.md", "docs/getting_started.md", "docs/guides/activations.md"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\nx = unknown\n```\n", "unknown"),
        ("```python\nimport torch\n\ntorch.zeros(2, 3)  # [2, 4]\n```\n", r"\[2, 4\], but it is \[2, 3\]"),
        ("```python\nimport torch\nx = torch.zeros(2)  # float32 [3]\n```\n", r"\[3\], but it is \[2\]"),
        ("```python\nprint(f'{1.5:.2f} nats')\n```\n\n```text\n1.60 nats\n```\n", "says 1.60, but it is 1.50"),
        ("```python\nprint('3 of 4')\n```\n```text\n4 of 4\n```\n", "the page says"),
        ("- in a list\n\n  ```python\n  x = 1\n  ```\n", "indented"),
        ("```python\nx = 1\n", "not closed"),
    ],
)
def test_a_page_that_promises_too_much_fails(text, message):
    with pytest.raises((AssertionError, NameError), match=message):
        run_page(Path("page.md"), text)


def test_an_error_names_the_line_of_the_page():
    with pytest.raises(ZeroDivisionError) as error:
        run_page(Path("page.md"), "# Title\n\n```python\nx = 1\ny = x / 0\n```\n")
    assert error.traceback[-1].lineno + 1 == 5


def test_what_is_allowed_to_differ():
    check_output("mean 1.49 nats\n", "mean 1.50 nats\n")
    check_output("a  1,234.5\n", "a 1,240.0\n")
    check_shape((2, 3), (2, 3), "x.shape")
