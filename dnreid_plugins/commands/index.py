"""``dnreid index``: a gallery of images that a trained model can search."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Device, Domain, Images, Run, SkipBad, Weights

if TYPE_CHECKING:
    from ..retrieval.additions import Addition


class KindName(str, Enum):
    """How a gallery is searched."""

    flat = "flat"
    ivf = "ivf"
    hnsw = "hnsw"


def index(
    run: Run,
    images: Images,
    out: Annotated[
        str, typer.Option(help="Folder of the gallery: new, empty, or a gallery that is replaced.")
    ],
    domain: Domain = None,
    kind: Annotated[
        KindName,
        typer.Option(
            help="flat compares all images and is exact; ivf and hnsw look at a part of a large gallery."
        ),
    ] = KindName.flat,
    add: Annotated[
        bool,
        typer.Option(
            "--add", help="Keep what is there; embed new images, and changed ones in place of the old."
        ),
    ] = False,
    folder_ids: Annotated[
        bool, typer.Option("--folder-ids", help="The first sub-folder of an image is its identity.")
    ] = False,
    skip_bad: SkipBad = False,
    weights: Weights = None,
    device: Device = None,
) -> None:
    """Embed images and keep their features as a gallery for search and serve."""
    from ..retrieval import store
    from ..retrieval.gallery import write_gallery
    from ..retrieval.matcher import Matcher
    from ..retrieval.sources import collect
    from ..runtime.logs import setup_logs

    setup_logs("")
    store.refuse_foreign(out)
    entries = collect(images, domain.value if domain else None, folder_ids=folder_ids, skip_bad=skip_bad)
    matcher = Matcher.load(run, weights=weights, device=device)
    done = write_gallery(out, matcher, entries, kind=kind.value, add=add, skip_bad=skip_bad)
    _tell(out, store.read_manifest(out), done)


def _tell(out: str, manifest: dict[str, object], done: Addition) -> None:
    count = int(str(manifest["count"]))
    typer.echo(f"{out}: {count} images ({manifest['kind']}).")
    notes = {
        "were there unchanged": done.unchanged,
        "were replaced, since they had changed": done.replaced,
        "are copies of another image, and both are kept": done.copies,
        "were left out, since they could not be read": len(done.kept_entries) + len(done.new) - count,
    }
    for text, number in notes.items():
        if number:
            typer.echo(f"{number} {text}.")
