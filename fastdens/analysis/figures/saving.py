"""Save figures as PNG and PDF."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fastdens.io.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: str | os.PathLike[str], *, overwrite: bool = False) -> tuple[Path, Path]:
    """Write a figure as PNG, at 200 dots per inch, and as PDF, with embedded TrueType fonts (type 42).

    The same figure gives the same bytes, since no date is written.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to write.
    path : path-like
        Without a suffix: ``.png`` and ``.pdf`` are appended. Missing folders are created.
    overwrite : bool
        Replace existing files.

    Returns
    -------
    (Path, Path)
        Paths of the PNG and of the PDF.

    Raises
    ------
    ValueError
        If the path ends in one of the suffixes.
    FileExistsError
        If one of the files exists and ``overwrite`` is False; then neither is written.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fastdens.analysis.figures import plot_trace, save_figure
    >>> figure = Figure(layout="constrained")
    >>> axes = plot_trace(figure.subplots(), [[-9.0, -8.5, -8.7], [-8.8, -8.6, -8.9]], "log-joint (nats)")
    >>> [path.name for path in save_figure(figure, "trace")]
    ['trace.png', 'trace.pdf']
    """
    from matplotlib import rc_context

    stem = Path(path)
    if stem.suffix in (".png", ".pdf"):
        raise ValueError(f"{stem} ends in {stem.suffix}, but both a PNG and a PDF are written: leave the suffix out.")
    png, pdf = (stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf"))
    with (
        atomic_write(png, overwrite=overwrite) as png_partial,
        atomic_write(pdf, overwrite=overwrite) as pdf_partial,
        rc_context({"pdf.fonttype": 42}),
    ):
        figure.savefig(png_partial, format="png", dpi=200, metadata={"Software": None})
        figure.savefig(pdf_partial, format="pdf", dpi=200, metadata={"CreationDate": None})
    return png, pdf
