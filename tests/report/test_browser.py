"""The page in a browser: on a phone, in the dark, in print, by keyboard, and its look-ups."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fastdens.report import metrics_of
from fastdens.report.figures import Picture
from fastdens.report.page import render_page
from fastdens.report.sections import sections_of
from tests.report import hostile_names
from tests.report.analysis_problem import analysis_problem

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-pdf-header-footer"),
)
N_CLASSES, LAYERS = 30, ("layer1", "layer2", "a.very.long.name.of.a.layer.without.any.space", "layer4")
CLASSES = (*(f"class {c}" for c in range(N_CLASSES - 1)), "n" * 80)
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="there is no chromium on the PATH")]


class Undrawn(dict):
    """Pictures as wide as those of a report."""

    def __missing__(self, name):
        return Picture(name, 1100, PIXEL)


@pytest.fixture(scope="module")
def analysis():
    return analysis_problem(np.random.default_rng(), class_names=CLASSES, layer_names=LAYERS)


@pytest.fixture(scope="module")
def page(analysis):
    return render_page(analysis, sections_of(analysis), metrics_of(analysis), Undrawn())


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Runs the browser on a page; what it prints, and the folder that it writes to."""

    def run(text, *flags, around=None):
        folder = tmp_path_factory.mktemp("browser")
        (folder / "page.html").write_text(text)
        (folder / "around.html").write_text(around or "")
        file = folder / ("page.html" if around is None else "around.html")
        command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, f"file://{file}"]
        return subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=folder).stdout.decode(), folder

    return run


def allowed(page, script):
    """The page with one more script in its policy."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "script-src " in page
    return page.replace("script-src ", f"script-src &#39;sha256-{digest}&#39; ", 1)


@pytest.fixture(scope="module", params=[360, 1200], ids=["phone in the dark", "desktop"])
def measured(request, page, browse):
    width, dark = request.param, request.param == 360
    script = Path(__file__).with_name("measure_page.js").read_text()
    script = f"(() => {{\n{script}}})();"
    text = allowed(page, script).replace("</body>", f"<script>{script}</script></body>")
    # A window has a least width, a frame has not.
    around = f"""<iframe src="page.html" style="width: {width}px; height: 800px; border: 0"></iframe><pre></pre><script>
        onmessage = event => {{ document.querySelector("pre").textContent = JSON.stringify(event.data); }};
    </script>"""
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    dom, _ = browse(text, scheme, "--window-size=1300,900", "--virtual-time-budget=5000", "--dump-dom", around=around)
    found = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", dom, re.S)[1]))
    assert "error" not in found, found["error"]
    assert found["dark"] == dark and found["width"] == width
    return found


def luminance(colour):
    """Relative luminance of ``rgb(r, g, b)``, as WCAG defines it."""
    parts = np.array(re.findall(r"[\d.]+", colour)[:3], float) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_page_is_no_wider_than_the_window(measured):
    assert measured["scrollWidth"] <= measured["width"] and measured["overflowing"] == 0


def test_text_is_legible_in_the_colours_of_the_reader(measured):
    colours = measured["colours"]
    assert (luminance(colours["paper"]) < 0.1) == measured["dark"]
    for ink in ("text", "caption", "link", "summary"):
        assert contrast(colours[ink], colours["paper"]) >= 4.5, ink
    assert contrast(colours["link"], colours["shade"]) >= 4.5
    assert set(measured["cards"]) == {"rgb(255, 255, 255)"}


def test_everything_can_be_reached_by_keyboard_and_read_aloud(measured):
    assert measured["focusable"][0] == "a.skip" and measured["positiveTabindex"] == 0
    assert measured["unnamed"] == measured["withoutAlt"] == 0
    assert {"button", "input", "summary", "div.scroll"} <= {*measured["focusable"]}
    assert measured["outline"] == "solid"


def test_a_button_sorts_the_rows_and_says_so(measured):
    (up, ascending), (down, descending) = measured["sorting"]
    assert (up, down) == ("ascending", "descending")
    assert ascending == sorted(ascending) and descending == ascending[::-1] and len(set(ascending)) == 2


def test_a_class_is_looked_up_at_all_layers(measured):
    assert measured["folded"] and not any(measured["folded"])
    assert measured["classRows"] == ["class 7"] * len(LAYERS) and measured["opened"]
    assert measured["noClass"] == "No class has this name." and measured["classRowsAgain"] == N_CLASSES * len(LAYERS)


def test_an_example_is_looked_up_by_its_number_and_by_its_class(analysis, measured):
    examples = analysis.examples
    (row,) = measured["example"]
    names = [CLASSES[labels[17]] for labels in (examples.labels, examples.true_labels, examples.train_predicted)]
    assert row[:4] == ["17", *names]
    shown = [np.nan if text == "–" else float(text) for text in row[4:]]
    numbers = [*(layer.log_density[17] for layer in analysis.layers), analysis.memorization.scores.values[17]]
    np.testing.assert_allclose(shown, numbers, atol=0.0006)
    n_of_class = int((examples.labels == 7).sum())
    assert measured["examplesOfClass"] == ["class 7"] * min(50, n_of_class) and measured["most"] == 50


def test_hostile_names_run_no_script(browse):
    """Neither by what is escaped, nor, where that failed, by what the page allows."""
    names = hostile_names.CLASSES, hostile_names.LAYERS
    analysis = analysis_problem(np.random.default_rng(), class_names=names[0], layer_names=names[1])
    page = render_page(analysis, sections_of(analysis), metrics_of(analysis), Undrawn())
    look = """const form = document.getElementById("example_lookup");
        form.elements.class.value = "script"; form.dispatchEvent(new Event("input", { bubbles: true }));
        document.documentElement.dataset.rows = document.querySelectorAll("#example_rows tbody tr").length;"""
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    body = f"<script>{look}</script></body>"
    unescaped = "".join(hostile_names.CLASSES[:6])
    for text, ran in (
        (policy.sub("", page).replace("</body>", body), False),
        (allowed(page, look).replace("</body>", unescaped + body), False),
        (policy.sub("", page).replace("</body>", unescaped + body), True),
    ):
        dom, _ = browse(text, "--virtual-time-budget=2000", "--dump-dom")
        root = re.search(r"<html[^>]*>", dom)[0]
        assert 'data-rows="50"' in root and ("data-ran" in root) == ran


def test_folded_parts_are_printed_without_scripts(page, browse):
    def n_bytes(text):
        _, folder = browse(text, "--print-to-pdf=page.pdf")
        return (folder / "page.pdf").stat().st_size

    still = re.sub(r"<(script|figure)\b.*?</\1>", "", page, flags=re.S)
    assert "<details>" in still and "</figure>" not in still
    emptied = re.sub(r"(<summary>[^<]*</summary>).*?</details>", r"\1</details>", still, flags=re.S)
    opened = n_bytes(still.replace("<details>", "<details open>"))
    assert n_bytes(still) == pytest.approx(opened, rel=0.01) and n_bytes(emptied) < 0.9 * opened
