"""``dnreid index``: a gallery of images that a trained model can search."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer


class DomainName(str, Enum):
    """The domain of images."""

    day = "day"
    night = "night"


class KindName(str, Enum):
    """How a gallery is searched."""

    flat = "flat"
    ivf = "ivf"
    hnsw = "hnsw"


def index(
    run: Annotated[str, typer.Argument(help="Folder of a run, or a config with --weights.")],
    images: Annotated[
        list[str],
        typer.Argument(
            help="Folders, images, tables (.csv with the columns path and, if known, domain and id)."
        ),
    ],
    out: Annotated[
        str, typer.Option(help="Folder of the gallery: new, empty, or a gallery that is replaced.")
    ],
    domain: Annotated[DomainName | None, typer.Option(help="Domain of the images.")] = None,
    kind: Annotated[
        KindName,
        typer.Option(
            help="flat compares all images and is exact; ivf and hnsw are faster from about 100,000 on."
        ),
    ] = KindName.flat,
    add: Annotated[
        bool,
        typer.Option(
            "--add",
            help="Add to the gallery that is there: only new and changed images are embedded, a changed one "
            "replaces its old entry.",
        ),
    ] = False,
    folder_ids: Annotated[
        bool, typer.Option("--folder-ids", help="The first sub-folder of an image is its identity.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave images out that cannot be read.")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(help="Checkpoint: a path or a name in RUN.", show_default="model_final.pth")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda:1.", show_default="that of RUN")
    ] = None,
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
    count, left_out = store.read_manifest(out)["count"], len(done.kept_entries) + len(done.new)
    typer.echo(f"{out}: {count} images ({kind.value if not add else store.read_manifest(out)['kind']}).")
    notes = {
        "were there unchanged": done.unchanged,
        "were replaced, since they had changed": done.replaced if add else 0,
        "are copies of another image, and both are kept": done.copies,
        "were left out, since they could not be read": left_out - count,
    }
    for text, number in notes.items():
        if number:
            typer.echo(f"{number} {text}.")
