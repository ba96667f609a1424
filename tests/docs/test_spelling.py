import subprocess
import sys

import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

from tests.docs.conftest import REPOSITORY
from tests.docs.site import GENERATED
from tests.docs.spelling import known_words, prose_of, unknown_words

TERMS = known_words(REPOSITORY / "docs" / "words.txt")
TEXTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]


def prose_of_markdown(name):
    html = MarkdownIt("commonmark").enable("table").render((REPOSITORY / name).read_text(encoding="utf-8"))
    return prose_of(BeautifulSoup(html, "html.parser"))


@pytest.mark.slow
def test_words_of_the_site_are_words(pages):
    texts = [prose_of(page.article) for name, page in pages.items() if name not in GENERATED]
    unknown = sorted(unknown_words(texts, TERMS))
    assert unknown == [], "correct them, or add those that are right to docs/words.txt"


def test_words_of_the_repository_are_words():
    unknown = sorted(unknown_words(map(prose_of_markdown, TEXTS), TERMS))
    assert unknown == [], "correct them, or add those that are right to docs/words.txt"


def test_common_misspellings_are_absent():
    paths = [*TEXTS, "docs", "fastdens", "kernels", "examples", "tests/docs"]
    skipped = "*.svg,*.woff2,*.png,*.pdf,*.txt,generated,test_spelling.py"
    command = [sys.executable, "-m", "codespell_lib", "--skip", skipped, "--ignore-words-list", "trough"]
    done = subprocess.run([*command, *paths], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_misspelling_is_found():
    html = BeautifulSoup("<p>A densitty of <code>nonsens</code> and colour, Student’s, N = 30k</p>", "html.parser")
    assert unknown_words([prose_of(html)], frozenset()) == {"densitty"}
    assert unknown_words([prose_of(html)], frozenset({"densitty"})) == set()
