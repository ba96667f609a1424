import shutil

import nbformat
import pytest
from markdown_it import MarkdownIt

from tests.docs.conftest import REPOSITORY
from tests.docs.site import (
    broken_links,
    broken_links_of_markdown,
    outside_resources,
    read_site,
    undescribed_pictures,
    unreachable_pages,
    untitled_pages,
)

NOTEBOOKS = sorted((REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.slow


def test_the_site_is_built_without_a_warning(site):
    code, said = (site.parent / "site.log").read_text().split("\n", 1)
    lines = [line for line in said.splitlines() if "WARNING: " in line or "ERROR: " in line]
    assert (code, lines) == ("0", []), said


def test_links_lead_somewhere(site, pages):
    assert broken_links(site, pages) == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_links_of_the_repository_lead_somewhere(name):
    path = REPOSITORY / name
    render = MarkdownIt("commonmark").enable("table").render
    assert broken_links_of_markdown(path, render(path.read_text(encoding="utf-8"))) == []
    assert broken_links_of_markdown(path, render("[x](nowhere.md)")) == [f"{name}: nowhere.md does not exist"]


def test_nothing_is_loaded_from_elsewhere(site, pages):
    assert outside_resources(site, pages) == []


def test_pages_have_titles_and_pictures_have_words(pages):
    assert untitled_pages(pages) == []
    assert undescribed_pictures(pages) == []


def test_every_page_can_be_reached(site, pages):
    assert unreachable_pages(site, pages) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_its_pictures_and_can_be_downloaded(site, pages, path):
    page = pages[f"notebooks/{path.stem}.html"]
    cells = nbformat.read(path, as_version=4).cells
    drawing = [cell for cell in cells if "plt.subplots(" in cell.source or "draw_traces(" in cell.source]
    drawing = [cell for cell in drawing if cell.cell_type == "code"]
    assert len(page.article.select(".cell_output img")) >= len(drawing) >= 2
    assert [link["href"] for link in page.article.select("a[download]")] == [path.name]
    assert (site / "notebooks" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_what_it_gave(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert notebook.cells[0].source.startswith("# ")


def test_the_checks_find_what_is_planted(site, tmp_path):
    copy = tmp_path / "site"
    copy.mkdir()
    for name in ("index.html", "limits.html"):
        shutil.copyfile(site / name, copy / name)
    text = (site / "limits.html").read_text(encoding="utf-8")
    (copy / "planted.html").write_text(
        text.replace(
            "</h1>",
            "</h1><h1>Again</h1><a href='nowhere.html'>x</a><a href='limits.html#nothing'>x</a><a href='https://x'>x</a>"
            "<script src='https://example.org/x.js'></script><img src='missing.png'>",
            1,
        ),
        encoding="utf-8",
    )
    (copy / "planted.css").write_text("@import url(https://example.org/x.css);")
    pages = read_site(copy)
    links = [line for line in broken_links(copy, pages) if line.startswith("planted.html")]
    assert {"planted.html: nowhere.html does not exist", "planted.html: https://x is no address"} <= set(links)
    assert "planted.html: limits.html#nothing has no such anchor" in links
    resources = outside_resources(copy, pages)
    assert "planted.html: https://example.org/x.js lies elsewhere" in resources
    assert "planted.html: missing.png does not exist" in resources
    assert "planted.css: https://example.org/x.css lies elsewhere" in resources
    assert "planted.html has 2 headings of the first order" in untitled_pages(pages)
    assert undescribed_pictures({"planted.html": pages["planted.html"]}) == [
        "planted.html: missing.png has no alternative text"
    ]
    assert "nothing leads to planted.html" in unreachable_pages(copy, pages)
