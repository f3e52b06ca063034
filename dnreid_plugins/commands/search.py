"""``dnreid search``: the most similar images of a gallery."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Device, Domain, DomainName, Images, SkipBad

#: Queries that are printed.
PRINTED = 20
ENDINGS = (".html", ".csv", ".json")


def search(
    gallery: Annotated[str, typer.Argument(help="Folder that `dnreid index` made.")],
    images: Images,
    domain: Domain = None,
    k: Annotated[int, typer.Option(min=1, help="Matches per image.")] = 10,
    among: Annotated[DomainName | None, typer.Option(help="Only matches of this domain.")] = None,
    out: Annotated[
        str | None, typer.Option(help="Write all matches to this file: .html (with pictures), .csv or .json.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Folder of the run, if it is not where it was.", show_default=False)
    ] = None,
    skip_bad: SkipBad = False,
    device: Device = None,
) -> None:
    """Find the most similar images of a gallery for each given image."""
    from pathlib import Path

    from ..retrieval import tables
    from ..retrieval.index import Index
    from ..retrieval.matcher import Matcher
    from ..retrieval.page import as_page
    from ..retrieval.sources import collect
    from ..retrieval.threshold import Threshold
    from ..runtime.files import write_atomically
    from ..runtime.logs import setup_logs

    setup_logs("")
    if out is not None and (Path(out).suffix not in ENDINGS or not Path(out).parent.is_dir()):
        raise ValueError(f"--out is {out!r}; name a file {', '.join(ENDINGS)} in a folder that exists.")
    index = Index.load(gallery)
    threshold = Threshold.load(gallery) if run is None else Threshold.of_model(run, index.fingerprint)
    queries = collect(images, domain.value if domain else None, skip_bad=skip_bad)
    matcher = Matcher.of(index, run=run, device=device)
    paths, domains = [one.path for one in queries], [int(one.domain) for one in queries]
    results = matcher.search(paths, domains, index, k, among=among.value if among else None)
    typer.echo(tables.as_text(results, threshold, queries=PRINTED))
    if threshold is None:
        typer.echo("No threshold is known for this model; `dnreid calibrate` finds one.")
    else:
        typer.echo(f"A match counts from {threshold.value:.3f} on; scores in brackets are below.")
    if out is not None:
        if Path(out).suffix == ".html":
            content = as_page(results, threshold, gallery=Path(gallery).resolve().name, images=len(index))
        else:
            write = tables.as_csv if Path(out).suffix == ".csv" else tables.as_json
            content = write(results, threshold)
        write_atomically(out, lambda file: file.write(content))
        typer.echo(f"{out}: all matches of {len(results)} queries.")
