"""Put the short table of the committed results into README: ``python -m benchmarks.readme``.

``make bench`` calls it after it has written ``docs/benchmark``. The table stands between two comments of README.
"""

from __future__ import annotations

from pathlib import Path

from fastdens.bench import table
from fastdens.bench.results import Results

ROOT = Path(__file__).parents[1]
RESULTS, README = ROOT / "docs" / "benchmark", ROOT / "README.md"
BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


def with_table(text: str, results: Results) -> str:
    """A page whose block between the markers is the short table of the results.

    Raises
    ------
    ValueError
        If the page does not have both markers once.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the page needs {BEGIN} and {END}, each once.")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table.short_markdown(results)}{END}{after}"


def main() -> None:
    """Write README."""
    README.write_text(with_table(README.read_text(), Results.load(RESULTS)))


if __name__ == "__main__":
    main()
