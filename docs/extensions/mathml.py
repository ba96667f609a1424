"""Formulas as MathML, which browsers draw by themselves: a page loads no script, and none from elsewhere."""

from __future__ import annotations

import unicodedata
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ARGUMENTS = {"mfrac": 2, "msub": 2, "msup": 2, "msubsup": 3, "mover": 2, "munder": 2, "munderover": 3}
ROWS = {"math", "mrow", "mtd", "mstyle", "msqrt"}
SCRIPTS = {"msub", "msup", "msubsup", "munder", "munderover"}
OPERANDS = SCRIPTS | {"mi", "mn", "mfrac", "mrow", "mover", "msqrt"}
OPENING = set("([{⟨⌈⌊")
CLOSING = set(")]}⟩⌉⌋|‖")
RELATIONS = set("=<>≤≥≈∼∝,;")
ACCENTS = {"^": "ˆ", "¯": "¯", "~": "˜", "˙": "˙", "→": "→"}
LIMITS = {"max", "min", "sup", "inf", "lim", "arg\u2009max", "arg\u2009min"}
THIN = "0.167em"
VARIANTS = {
    "bold": "BOLD",
    "bold-italic": "BOLD ITALIC",
    "script": "SCRIPT",
    "double-struck": "DOUBLE-STRUCK",
    "fraktur": "FRAKTUR",
}


def to_mathml(latex: str, display: str) -> str:
    """MathML of a formula.

    The converter says what a formula is, this how it looks: letters, accents, columns and spaces as TeX has them, by
    what browsers know of MathML (MathML Core).

    Parameters
    ----------
    latex : str
        LaTeX, with no delimiters.
    display : str
        "inline" or "block".

    Returns
    -------
    str
        A math element.

    Raises
    ------
    ValueError
        If the converter does not know something in the formula.
    """
    latex = latex.strip()
    if display == "block" and r"\\" in latex and r"\begin" not in latex:
        latex = rf"\begin{{align*}}{latex}\end{{align*}}"
    # The converter knows the one by the other's name.
    latex = latex.replace("{aligned}", "{align*}")
    try:
        root = ElementTree.fromstring(convert(latex, display=display))
    except Exception as error:
        raise ValueError(f"the formula {latex!r} has no MathML: {error!r}") from error
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{NAMESPACE}}}")
        # What the converter does not know goes through as it is, or leaves an operator without a sign.
        text = element.text or ""
        if "\\" in text or "&" in text or (element.tag == "mo" and not text):
            raise ValueError(f"the formula {latex!r} has a command that the converter does not know: {text!r}")
        if len(element) != ARGUMENTS.get(element.tag, len(element)):
            raise ValueError(f"the formula {latex!r} lacks an argument of a fraction, an index or an accent")
    for element in root.iter():
        choose_letters(element)
        align(element)
        if element.tag in ROWS:
            space(list(element))
    root.set("xmlns", NAMESPACE)
    return ElementTree.tostring(root, encoding="unicode")


def choose_letters(element: ElementTree.Element) -> None:
    """Bold and script letters as characters of their own, which is how browsers know them; capital Greek upright."""
    variant = VARIANTS.get(element.get("mathvariant", ""))
    text = element.text or ""
    if variant is not None:
        del element.attrib["mathvariant"]
        element.text = "".join(letter_of(character, variant) for character in text)
    elif element.tag == "mi" and len(text) == 1 and "\u0391" <= text <= "\u03a9":
        element.set("mathvariant", "normal")
    elif element.tag == "mi" and text == "~":
        element.tag, element.text = "mo", "∼"


def letter_of(character: str, variant: str) -> str:
    """The bold, script, ... form of a letter or digit, or the character itself where there is none."""
    name = unicodedata.name(character).removeprefix("GREEK ").removeprefix("LATIN ").replace("LETTER ", "")
    if name.startswith("DIGIT "):
        variant = variant.removesuffix(" ITALIC")
    for full in (f"MATHEMATICAL {variant} {name}", f"{variant} {name}"):
        try:
            return unicodedata.lookup(full)
        except KeyError:
            continue
    return character


def align(element: ElementTree.Element) -> None:
    """Columns and accents by what browsers know: a style in place of `columnalign`, an accent said to be one."""
    column = element.attrib.pop("columnalign", None)
    if column is not None and element.tag == "mtd":
        gap = {"right": "padding-right: 0", "left": "padding-left: 0"}.get(column, "")
        element.set("style", f"text-align: {column}; {gap}")
    if element.tag == "mover" and (element[1].text or "") in ACCENTS:
        element.set("accent", "true")
        element[1].text = ACCENTS[element[1].text or ""]


def space(row: list[ElementTree.Element]) -> None:
    """The spaces of TeX in a row: about names of functions, signs, bars and slashes."""
    for position, element in enumerate(row):
        before = row[position - 1] if position else None
        after = row[position + 1] if position + 1 < len(row) else None
        inner = element
        while inner.tag in SCRIPTS:
            inner = inner[0]
        text = inner.text or ""
        before_text = "" if before is None else before.text or ""
        after_text = "" if after is None else after.text or ""
        if inner.tag in {"mi", "mo"} and len(text) > 1 and text.replace("\u2009", "").isalpha():
            inner.tag = "mo"
            if text in LIMITS and element.tag == "msub":
                element.tag = "munder"
                inner.set("movablelimits", "true")
            close = before is not None and (before.tag in OPERANDS or before_text in CLOSING)
            inner.attrib.update(form="prefix", lspace=THIN if close else "0em")
            inner.set("rspace", "0em" if after is None or after_text in OPENING else THIN)
        elif inner.tag != "mo":
            continue
        elif text in {"|", "‖", "/"}:
            # Signs of norms, determinants and quotients: `\mid` has a character of its own.
            inner.attrib.update({"lspace": "0em", "rspace": "0em", "stretchy": inner.get("stretchy", "false")})
        elif text in {"−", "+", "±"} and before is not None and before_text in OPENING | RELATIONS:
            inner.set("form", "prefix")


def html_of(node: nodes.Node, display: str) -> str:
    """MathML of a node, or a warning with its place."""
    try:
        return to_mathml(node.astext(), display)
    except ValueError as error:
        logger.warning("%s", error, location=node, type="mathml")
        return ""


def visit_math(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    translator.body.append(f'<span class="math notranslate">{html_of(node, "inline")}</span>')
    raise nodes.SkipNode


def visit_math_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on lines of its own, with its number where it has one."""
    # It may be wider than a small screen: then it scrolls, by keyboard too.
    translator.body.append(translator.starttag(node, "div", CLASS="math-block notranslate", tabindex="0"))
    translator.body.append(html_of(node, "block"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer the renderer `mathml` to `html_math_renderer`."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
