"""The page: templates filled with an analysis, its metrics and its pictures.

A metric stands on the page as ``<data value="...">``, with all its digits in the attribute.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastdens.kernels.optional import require
from fastdens.pipeline.results import Analysis
from fastdens.printable import printable
from fastdens.report.figures import Picture
from fastdens.report.metrics import Metrics
from fastdens.report.section import Section

if TYPE_CHECKING:
    from jinja2 import Environment

_STYLE, _SCRIPTS = "style.css", ("sorting.js", "lookup.js")


def render_page(
    analysis: Analysis, sections: Sequence[Section], metrics: Metrics, pictures: Mapping[str, Picture]
) -> str:
    """The sections as one self-contained page of HTML.

    Parameters
    ----------
    analysis : Analysis
    sections : sequence of Section
        In the order of the page.
    metrics : Metrics
        Those of the sections.
    pictures : mapping
        Those of the sections, by name.

    Returns
    -------
    str

    Raises
    ------
    KeyError
        If a template asks for a metric or a picture that is not there.
    """
    environment = make_environment()
    shared = {
        "analysis": analysis,
        "examples": analysis.examples,
        "layers": analysis.layer_names,
        "first": analysis.layer_names[0],
        "last": analysis.layer_names[-1],
        "metrics": metrics,
        "options": analysis.options,
        "pictures": pictures,
    }
    bodies = [
        environment.get_template(f"{section.name}.html").render(shared, **section.context(analysis))
        for section in sections
    ]
    page = environment.get_template("page.html")
    return page.render(shared, sections=list(zip(sections, bodies, strict=True)), options_json=options_json(analysis))


def options_json(analysis: Analysis) -> str:
    """How the data were made and how they were analysed, as JSON."""
    return json.dumps({**analysis.provenance.settings, **analysis.options.as_json()})


def make_environment() -> Environment:
    """The templates, and how they show numbers.

    Raises
    ------
    ImportError
        If jinja2 is missing.
    """
    jinja2 = require("jinja2", "write_report", "analysis")
    markup = require("markupsafe", "write_report", "analysis").Markup
    environment: Environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastdens.report"),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["all_digits"] = repr
    environment.filters["digits"] = format_digits
    environment.filters["listed"] = listed
    environment.filters["option"] = format_option
    environment.tests["nan"] = math.isnan
    sources = {name: _source(environment, name) for name in (_STYLE, *_SCRIPTS)}
    environment.globals["inline"] = lambda name: markup(sources[name])
    environment.globals["policy"] = _content_policy(sources)
    return environment


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _content_policy(sources: Mapping[str, str]) -> str:
    """What a browser may do with the page: show its pictures and run its own scripts, known by their digests."""
    digests = {
        name: f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
        for name, source in sources.items()
    }
    scripts = " ".join(digests[name] for name in _SCRIPTS)
    return (
        f"default-src 'none'; img-src data:; style-src {digests[_STYLE]}; script-src {scripts}; base-uri 'none'; "
        "form-action 'none'"
    )


def _shown(value: object) -> object:
    """A value as the page shows it; what a macro made is text of the page already."""
    return printable(value) if type(value) is str else value


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence: ``"a, b and c"``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def format_digits(value: float, digits: str) -> str:
    """A number as the page shows it: ``digits`` is a format specification, ``"d"`` for a whole number."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    shown: Any = int(value) if digits == "d" else value
    return format(shown, digits)


def format_option(value: object) -> str:
    """The value of an option as the page shows it; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
