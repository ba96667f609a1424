"""A link at the top of a notebook's page, which downloads the notebook."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx


def link_notebook(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """Put the link below the title, and the notebook beside the page."""
    if doctree is None or app.env.doc2path(pagename).suffix != ".ipynb":
        return
    source, name = Path(app.env.doc2path(pagename)), pagename.rsplit("/", 1)[-1] + ".ipynb"
    target = Path(app.outdir) / f"{pagename}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    link = f'<p><a class="reference download internal" download href="{name}">Download this notebook</a></p>'
    title, end, rest = context["body"].partition("</h1>")
    context["body"] = f"{title}{end}\n{link}{rest}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen for pages."""
    app.connect("html-page-context", link_notebook)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
