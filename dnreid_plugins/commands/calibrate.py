"""``dnreid calibrate``: from which similarity on two images count as the same vehicle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .options import Device, Weights

if TYPE_CHECKING:
    from ..retrieval.labelled import Labelled
    from ..retrieval.matcher import Matcher
    from ..retrieval.pair_scores import PairScores
    from ..retrieval.threshold import Threshold


def calibrate(
    run: Annotated[
        str, typer.Argument(help="Folder of a run; the threshold is kept there, in threshold.json.")
    ],
    pairs: Annotated[
        str | None,
        typer.Option(help="Table of pairs (.csv): path_a, domain_a, path_b, domain_b, same (1 or 0)."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="A registered data set: its test images.")] = None,
    day: Annotated[
        str | None, typer.Option(help="Day images sorted into one sub-folder per identity.")
    ] = None,
    night: Annotated[str | None, typer.Option(help="Night images, with the same sub-folders.")] = None,
    gallery: Annotated[str | None, typer.Option(help="A gallery that knows identities.")] = None,
    false_match_rate: Annotated[
        float, typer.Option(help="Share of the pairs of different vehicles that may count as the same.")
    ] = 0.001,
    picture: Annotated[str | None, typer.Option(help="Draw similarities and curves into this .png.")] = None,
    weights: Weights = None,
    device: Device = None,
) -> None:
    """Find the similarity above which matches are accepted, from pairs that are known."""
    from ..retrieval import calibrate as found
    from ..retrieval.matcher import Matcher
    from ..runtime.logs import setup_logs

    setup_logs("")
    sources = {"--pairs": pairs, "--data": data, "--day and --night": day or night, "--gallery": gallery}
    _check(run, [name for name, value in sources.items() if value], false_match_rate, picture)
    listed = found.read_pairs(pairs) if pairs else None
    matcher = Matcher.load(run, weights=weights, device=device)
    if listed is not None:
        scores = found.scores_of_pairs(matcher, listed)
    else:
        scores = _of_all(_labelled(matcher, data, day, night, gallery), false_match_rate)
    threshold = found.calibrate(scores, fingerprint=matcher.fingerprint, rate=false_match_rate)
    if picture:
        from ..retrieval.curves import draw

        draw(threshold, picture)
    path = threshold.save(run)
    typer.echo(_text(threshold))
    typer.echo(f"{path}: a match counts from {threshold.value:.4f} on.")


def _check(run: str, given: list[str], rate: float, picture: str | None) -> None:
    """Refuse what would fail after the images were embedded."""
    from pathlib import Path

    from ..retrieval.curves import check_name

    if len(given) != 1:
        raise ValueError(
            f"Got {' and '.join(given) or 'none'} of --pairs, --data, --day and --night, and --gallery; give one, "
            "which says which images are of the same vehicle."
        )
    if not Path(run).is_dir():
        raise ValueError(f"{run} is no folder; name the OUTPUT_DIR of a training.")
    if not 0 < rate < 1:
        raise ValueError(f"--false-match-rate is {rate}; give a number between 0 and 1, such as 0.001.")
    if picture is not None:
        check_name(picture)


def _of_all(labelled: Labelled, rate: float) -> dict[str, PairScores]:
    from ..retrieval.calibrate import RATES
    from ..retrieval.pair_scores import all_pairs

    return all_pairs(labelled.features, labelled.ids, labelled.domains, rate=max(rate, *RATES))


def _labelled(
    matcher: Matcher, data: str | None, day: str | None, night: str | None, gallery: str | None
) -> Labelled:
    from ..retrieval import labelled

    if gallery:
        return labelled.of_gallery(matcher, gallery)
    return labelled.of_data(matcher, data) if data else labelled.of_folders(matcher, day, night)


def _text(threshold: Threshold) -> str:
    from tabulate import tabulate

    from ..retrieval.calibrate import WORDS

    rows = [
        [
            WORDS[kind],
            one.pairs_positive,
            one.pairs_negative,
            one.identities or "-",
            f"{one.value:.4f}",
            f"{one.false_match_rate:.2g}",
            f"{one.interval[0]:.2g} - {one.interval[1]:.2g}",
            f"{100 * one.true_match_rate:.1f} %",
        ]
        for kind, one in threshold.directions.items()
    ]
    header = [
        "pairs",
        "same",
        "different",
        "identities",
        "threshold",
        "false matches",
        "95 % interval",
        "found",
    ]
    return tabulate(rows, header, tablefmt="simple", disable_numparse=True)
