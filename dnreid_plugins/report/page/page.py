"""``report.html``: one self-contained page about one run."""

from __future__ import annotations

import base64
import csv
import io
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fastreid.config import CfgNode

from ...runtime.files import write_atomically
from .atlas import write_atlas
from .curves import label_curves, metric_curves, training_curves
from .folder import QUERIES, REPORT, RunFolder, read_run
from .material import Material, of_folder
from .pictures import Thumbnails
from .render import render
from .results_table import results_of
from .settings import settings_of
from .sheets import Sheets, sheets
from .views import SetView, attention_of_clusters, test_view, train_view

logger = logging.getLogger(__name__)

T = TypeVar("T")


def write_report(
    folder: str | Path,
    *,
    cfg: CfgNode | None = None,
    material: Material | None = None,
    out: Path | None = None,
    atlas: Path | None = None,
) -> Path:
    """Write the page of a run, and ``queries.csv`` with the average precision of every query into its folder.

    Args:
        folder: ``OUTPUT_DIR`` of the run.
        cfg: its config, where that is known.
        material: features and model, where they are at hand; else weights and images are read and the features
            extracted again.
        out: where to write; ``folder/report.html`` if None.
        atlas: also write the images of the maps as a Parquet file.

    Returns:
        The path of the page.

    Raises:
        ValueError: this is no folder of a run, or what ``atlas`` needs is missing.
        OSError: a file cannot be written.
    """
    run = read_run(folder, cfg)
    out = Path(folder) / REPORT if out is None else out
    check_writable(out, atlas)
    content = content_of(run, material or of_folder(run))
    views: list[SetView] = content["views"]
    _write_queries(run, views)
    text = render("run.html", **content)
    write_atomically(out, lambda file: file.write(text))
    if atlas is not None:
        rows = [row for view in views for row in view.atlas]
        thumbnails: Thumbnails = content["thumbnails"]
        write_atlas(atlas, rows, {row.path: _bytes(thumbnails(row.path).uri) for row in rows})
    return out


def content_of(run: RunFolder, material: Material) -> dict[str, Any]:
    """What the template gets; a part that cannot be made is left out, with a note."""
    notes = [*run.missing, *material.missing]
    thumbnails = Thumbnails()

    def attempt(what: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except Exception as error:  # no part of a page is worth the rest of it
            logger.warning("%s of the report could not be made: %s", what, error)
            logger.debug("traceback of the error", exc_info=True)
            notes.append(f"{what} could not be made: {error}")
            return None

    found: Sheets | None = None
    if run.clusters:
        paths = material.paths if len(material.paths) == len(run.clusters) else [r.path for r in run.clusters]
        ids = material.identities
        found = attempt("The contact sheets", lambda: sheets(run.clusters, paths, ids, thumbnails))
    views = [
        test_view(run, material, name, thumbnails, attempt) for name in run.tests if name in material.tests
    ]
    training = attempt("The map of the training images", lambda: train_view(run, material, attempt))
    results = results_of(run, material)
    if not material.tests and training is not None and found is not None:
        training.attention = attention_of_clusters(run, material, found, attempt)
    if not material.tests and not results and run.results:
        notes.append("No test set of this run has identities, so there are no results and no rank lists.")
    return {
        "run": run,
        "results": results,
        "curves": attempt("The curves", lambda: training_curves(run)) or [],
        "metrics": attempt("The curves of the metrics", lambda: metric_curves(run)) or [],
        "labels": attempt("The curves of the labels", lambda: label_curves(run)),
        "views": [*views, training] if training is not None else views,
        "sheets": found,
        "settings": settings_of(run),
        "thumbnails": thumbnails,
        "notes": [*notes, *([thumbnails.sentence()] if thumbnails.sentence() else [])],
    }


def check_writable(*paths: Path | None) -> None:
    """Refuse a place that does not exist before anything is computed."""
    for path in paths:
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"There is no folder {path.absolute().parent} for {path.name}; make it first.")
        if path is not None and path.is_dir():
            raise ValueError(f"{path} is a folder; name a file.")


def _write_queries(run: RunFolder, views: Sequence[SetView]) -> None:
    rows = [
        (view.name, lists.name, path, "" if math.isnan(ap) else f"{ap:.6g}")
        for view in views
        for lists in view.directions
        for path, ap in zip(lists.paths, lists.aps)
    ]
    if not rows:
        return
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerows([("set", "direction", "query", "ap"), *rows])
    content = text.getvalue().encode("utf-8", "surrogateescape")
    try:
        write_atomically(run.folder / QUERIES, lambda file: file.write(content))
    except OSError as error:
        logger.warning(
            "%s could not be written (%s); the report has all but it.", error.filename, error.strerror
        )


def _bytes(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])
