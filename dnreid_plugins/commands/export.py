"""``dnreid export``: the encoder, or features, for other programs."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from .options import Run, Weights


class Target(str, Enum):
    """What is exported."""

    onnx = "onnx"
    torch = "torch"
    features = "features"


def export(
    run: Run,
    to: Annotated[Target, typer.Option(help="onnx or torch (torch.export): the encoder; features: a table.")],
    out: Annotated[
        str,
        typer.Option(help="A new folder; of features a file .parquet, .csv, or .npy with a .csv beside it."),
    ],
    data: Annotated[
        str | None, typer.Option(help="A registered data set.", show_default="the test sets of RUN")
    ] = None,
    gallery: Annotated[
        str | None, typer.Option(help="Features of this gallery instead of a data set.")
    ] = None,
    weights: Weights = None,
) -> None:
    """Write the encoder as ONNX or torch.export, compared with the run, or features with their labels."""
    from ..retrieval import features_file, labelled
    from ..retrieval.export import export as write
    from ..retrieval.matcher import Matcher
    from ..runtime.logs import setup_logs

    setup_logs("")
    if to is Target.features:
        features_file.check_name(out)
    elif gallery:
        raise ValueError("--gallery is for --to features; an encoder is compared on a data set (--data).")
    matcher = Matcher.load(run, weights=weights, device=None if to is Target.features else "cpu")
    if to is Target.features:
        sets = [data] if data else list(matcher.cfg.DATASETS.TESTS)
        found = labelled.of_gallery(matcher, gallery) if gallery else labelled.of_sets(matcher, sets)
        files = features_file.write_features(out, found)
        typer.echo(
            f"{' and '.join(map(str, files))}: {len(found.paths)} features of {matcher.dim} dimensions."
        )
        return
    done = write(matcher, out, to=to.value, sets=[data] if data else None)
    names = ", ".join(sorted({*done.files.values()}))
    typer.echo(f"{out}: {names}, export.json.")
    scored = (
        f"the percentages by at most {done.metric_difference:.2g}" if done.expected else "nothing was scored"
    )
    typer.echo(f"On {done.images} images the features differ by at most {done.difference:.1e}; {scored}.")
