"""Items that need no run: what a data set consists of, and what the modules of a model cost."""

from __future__ import annotations

from fastreid.data.datasets import DATASET_REGISTRY
from tabulate import tabulate

from ...data.datasets.counts import count_items
from ...functional.types import Domain
from ..model_stats import prompted_clip_stats, short
from .catalogue import Item
from .plan import Choice


def statistics_of(item: Item, choice: Choice) -> str:
    """Identities and images of both halves and domains, beside the published ones."""
    dataset = DATASET_REGISTRY.get(choice.data.name)()
    published = item.content["published"].get(item.like(choice.data), {})
    lines = []
    for half, items in (("train", dataset.train), ("test", dataset.test)):
        counts = count_items(half, items, dataset.words)
        for domain in Domain:
            word, paper = dataset.words[domain], published.get(f"{half} {domain.word}")
            ids, images = (counts[f"{half} {word} {what}"] for what in ("identities", "images"))
            told = [int(number) for number in paper.split("/")] if paper else None
            difference = f"{ids - told[0]:+d} / {images - told[1]:+d}" if told else "–"
            paper = f"{told[0]} / {told[1]}" if told else "–"
            lines.append([f"{half} {word}", paper, f"{ids} / {images}", difference])
    heads = ["identities / images", "paper", "ours", "difference"]
    return tabulate(lines, heads, tablefmt="github", disable_numparse=True)


def cost_of(item: Item) -> str:
    """Multiply-adds and parameters of each module for one image or one text of a full-size model."""
    lines = []
    for row in prompted_clip_stats():
        macs, parameters = item.content["published"].get(row.name, (None, None))
        cells = [short(macs) or "–", short(row.layer_macs), _percent(row.layer_macs, macs), short(row.macs)]
        cells += [short(parameters) or "–", short(row.layer_parameters)]
        lines.append([row.name, *cells, _percent(row.layer_parameters, parameters)])
    heads = ["module", "multiply-adds paper", "ours", "difference", "all arithmetic"]
    heads += ["parameters paper", "ours", "difference"]
    return tabulate(lines, heads, tablefmt="github", disable_numparse=True)


def _percent(ours: float, paper: float | None) -> str:
    return "–" if paper is None else f"{100 * (ours / paper - 1):+.1f} %"
