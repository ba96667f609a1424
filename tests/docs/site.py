"""What is wrong with a built site: links that lead nowhere, resources from elsewhere, pages without a title, ..."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

# Pages that Sphinx makes by itself, for which nobody writes a title or links.
GENERATED = {"search.html"}

_RESOURCES = {"link": "href", "script": "src", "img": "src", "source": "src", "iframe": "src", "object": "data"}
_IMPORTS = re.compile(r"""(?:@import\s+|url\()\s*["']?(?P<url>(?:https?:)?//[^"')\s]+)""")


@dataclass(frozen=True)
class Page:
    """A page of HTML, and where it lies in the site."""

    name: str
    soup: BeautifulSoup

    @property
    def article(self) -> Tag:
        """What somebody wrote, without the theme's frame."""
        found = self.soup.find(attrs={"role": "main"}) or self.soup.body
        assert isinstance(found, Tag), f"{self.name} has no body"
        return found


def read_site(folder: Path) -> dict[str, Page]:
    """All pages of a site by their names."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
    names = [name for name in names if not name.startswith(("_static/", "_sources/"))]
    return {n: Page(n, BeautifulSoup((folder / n).read_text(encoding="utf-8"), "html.parser")) for n in names}


def broken_links(folder: Path, pages: dict[str, Page]) -> list[str]:
    """Links within the site to files or anchors that do not exist, and links to elsewhere that are no addresses."""
    anchors = {name: {str(tag["id"]) for tag in page.soup.find_all(id=True)} | {""} for name, page in pages.items()}
    wrong = []
    for name, page in pages.items():
        for link in page.soup.find_all("a", href=True):
            address = urlsplit(str(link["href"]))
            if address.scheme in {"http", "https"}:
                if not re.fullmatch(r"[\w-]+(\.[\w-]+)+", address.netloc):
                    wrong.append(f"{name}: {link['href']} is no address")
            elif address.scheme in {"", "file"}:
                path = (folder / name).parent / unquote(address.path) if address.path else folder / name
                target = path.resolve()
                if not target.is_relative_to(folder.resolve()) or not target.is_file():
                    wrong.append(f"{name}: {link['href']} does not exist")
                elif unquote(address.fragment) not in anchors.get(name_of(target, folder), {unquote(address.fragment)}):
                    wrong.append(f"{name}: {link['href']} has no such anchor")
            elif address.scheme != "mailto":
                wrong.append(f"{name}: {link['href']} is of an unknown kind")
    return wrong


def name_of(path: Path, folder: Path) -> str:
    return path.relative_to(folder.resolve()).as_posix()


def outside_resources(folder: Path, pages: dict[str, Page]) -> list[str]:
    """Scripts, styles, pictures and frames that a page or a style sheet would load from elsewhere, or cannot load."""
    wrong = []
    for name, page in pages.items():
        for tag in page.soup.find_all(list(_RESOURCES)):
            value = str(tag.get(_RESOURCES[tag.name], ""))
            address = urlsplit(value)
            if (
                not value.strip("#")
                or address.scheme == "data"
                or (tag.name == "link" and tag.get("rel") == ["canonical"])
            ):
                continue
            if address.scheme or address.netloc:
                wrong.append(f"{name}: {value} lies elsewhere")
            elif not ((folder / name).parent / unquote(address.path)).is_file():
                wrong.append(f"{name}: {value} does not exist")
    for sheet in folder.rglob("*.css"):
        found = [match["url"] for match in _IMPORTS.finditer(sheet.read_text(encoding="utf-8"))]
        wrong += [f"{sheet.relative_to(folder)}: {url} lies elsewhere" for url in found]
    return wrong


def untitled_pages(pages: dict[str, Page]) -> list[str]:
    """Pages without a title, or with no heading of the first order, or with several."""
    wrong = [f"{name} has no title" for name, page in pages.items() if not (page.soup.title and page.soup.title.string)]
    for name, page in pages.items():
        n_headings = len(page.soup.find_all("h1"))
        if name not in GENERATED and n_headings != 1:
            wrong.append(f"{name} has {n_headings} headings of the first order")
    return wrong


def undescribed_pictures(pages: dict[str, Page]) -> list[str]:
    """Pictures that say nothing to who does not see them; those of notebooks are described by the text around them."""
    return [
        f"{name}: {image.get('src')} has no alternative text"
        for name, page in pages.items()
        for image in page.article.find_all("img")
        if not image.get("alt") and image.find_parent(class_="cell_output") is None
    ]


def unreachable_pages(folder: Path, pages: dict[str, Page]) -> list[str]:
    """Pages that no chain of links leads to from the first one."""
    seen, waiting = set(), ["index.html"]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in pages:
            continue
        seen.add(name)
        for link in pages[name].article.find_all("a", href=True) + pages[name].soup.select(".sidebar-tree a[href]"):
            address = urlsplit(str(link["href"]))
            if not address.scheme and address.path:
                target = ((folder / name).parent / unquote(address.path)).resolve()
                if target.is_relative_to(folder.resolve()):
                    waiting.append(name_of(target, folder))
    return [f"nothing leads to {name}" for name in pages if name not in seen | GENERATED]


def broken_links_of_markdown(path: Path, html: str) -> list[str]:
    """Relative links and pictures of a text in the repository that lead to no file."""
    soup = BeautifulSoup(html, "html.parser")
    addresses = [str(tag.get("href") or tag.get("src")) for tag in soup.find_all(["a", "img"])]
    local = [urlsplit(address).path for address in addresses if not urlsplit(address).scheme]
    return [f"{path.name}: {name} does not exist" for name in local if name and not (path.parent / name).exists()]
