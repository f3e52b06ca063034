"""Pieces of pages: numbers beside each other, and panels of pictures."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dnreid_plugins.report.page.maps import MapImages
from dnreid_plugins.report.reproduce import draw
from dnreid_plugins.report.reproduce.catalogue import SETS, Item, PaperRow
from dnreid_plugins.report.reproduce.figures_of_runs import Measured
from dnreid_plugins.report.reproduce.plan import Choice
from dnreid_plugins.report.reproduce.tables import orders, table_of

ITEM = Item("x-1", "T", "table", "P", ("DN348",), ("mAP",), {"directions": ["D2N"]}, {})


def measured(name: str, paper: float | None, values: dict[int, list[float]]) -> Measured:
    published = {} if paper is None else {"D2N": {"mAP": paper}}
    runs: list[Any] = [
        (place, SimpleNamespace(key=f"{place}{n}"), {"D2N": {"mAP": value}})
        for place, found in values.items()
        for n, value in enumerate(found)
    ]
    return Measured(PaperRow(name, "c.yml", published=published), runs)


def lines(found: list[Measured], **more: Any) -> list[list[str]]:
    text = table_of(ITEM, found, Choice(SETS[more.pop("data", "DN348")], SETS["DNWild"], **more))
    return [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ][2:]


def test_spread_is_that_of_runs_of_renderings_or_of_trials() -> None:
    rows = [measured("a", 40.0, {0: [41.0, 43.0]}), measured("b", None, {0: [50.0]}), measured("c", 30.0, {})]
    assert lines(rows, seeds=(0, 1)) == [
        ["a", "D2N", "40.00", "42.0 ± 1.4", "+2.0", "2"],
        ["b", "D2N", "–", "50.0", "–", "1"],
        ["c", "D2N", "30.00", "–", "–", "0"],
    ]
    two = [measured("a", 40.0, {1: [40.0, 44.0], 2: [46.0]})]  # means 42 and 46: error 2
    assert lines(two, data="DNMini", data_seeds=(1, 2))[0][3:5] == ["44.0 ± 2.0", "+4.0"]
    trials = [measured("a", 40.0, {1: [40.0], 2: [42.0], 3: [44.0]})]
    assert lines(trials, data="RegDB")[0][3:5] == ["42.0 ± 2.0", "+2.0"]


def test_the_order_of_the_rows_is_compared_with_the_papers() -> None:
    def told(*pairs: tuple[float | None, float]) -> str:
        return " ".join(
            orders(ITEM, [measured(str(n), one, {0: [value]}) for n, (one, value) in enumerate(pairs)])
        )

    assert "D2N mAP +1.00" in told((10.0, 1.0), (20.0, 2.0), (30.0, 3.0))
    assert "D2N mAP -1.00" in told((10.0, 3.0), (20.0, 2.0), (30.0, 1.0))
    assert "D2N mAP +0.33" in told((10.0, 1.0), (20.0, 3.0), (30.0, 2.0), (None, 9.0))
    assert told((10.0, 1.0), (20.0, 2.0)) == told((10.0, 1.0), (20.0, 1.0), (30.0, 1.0)) == told() == ""


def test_panels_do_not_cover_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "_png", lambda figure, alt: figure)
    images = MapImages(torch.zeros(8, 2), np.array([0, 1] * 4), [str(n // 2) for n in range(8)])
    points = np.random.default_rng(0).normal(size=(8, 2))
    figure: Any = draw.maps({"one": (points, images), "other": (points, images)})
    figure.draw_without_rendering()
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == 4 and not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_a_sweep_shows_ours_and_the_papers_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "_png", lambda figure, alt: figure)
    found = [measured("0.1", 40.0, {0: [41.0, 43.0]}), measured("0.2", None, {0: [50.0]})]
    figure: Any = draw.sweep([0.1, 0.2], found, ["mAP"], "x")
    (axes,) = figure.axes
    drawn = [(line.get_label(), line.get_xydata().tolist()) for line in axes.get_lines()]
    assert [[0.1, 42.0], [0.2, 50.0]] in [points for _, points in drawn]
    assert dict(drawn)["D2N, paper"][0] == [0.1, 40.0] and "N2D, paper" not in dict(drawn)
