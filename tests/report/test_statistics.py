"""Statistics: counts by hand, beside what was published, differences marked."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dnreid_plugins.commands.app import app
from dnreid_plugins.data.datasets import DN348, LLCM, SYSUMM01, DNWild, RegDB
from dnreid_plugins.data.datasets.base import CrossDomainDataset
from dnreid_plugins.dnmini.stand_ins import write_stand_in
from dnreid_plugins.report.statistics import Figure, statistics

#: Bridging's Table 6, "identities/images".
TABLE_6 = {
    DN348: {"train": ("200/9962", "200/10022"), "test": ("148/10121", "148/3972")},
    DNWild: {"train": ("1574/70981", "1574/35384"), "test": ("712/14964", "712/19568")},
}


@pytest.mark.parametrize("reader", TABLE_6)
def test_what_is_expected_is_what_was_published(reader: type[CrossDomainDataset]) -> None:
    for split, cells in TABLE_6[reader].items():
        for domain, cell in zip(("day", "night"), cells):
            ids, images = map(int, cell.split("/"))
            assert reader.expected[f"{split} {domain} identities"] == ids
            assert reader.expected[f"{split} {domain} images"] == images
    assert DNWild.expected["D2N queries"] == 2617 and DNWild.expected["N2D queries"] == 2610


def test_sums_of_the_other_sets_are_the_published_ones() -> None:
    llcm = [number for what, number in LLCM.expected.items() if what.endswith("images")]
    assert sum(llcm) == 46767 and LLCM.expected["train identities"] + LLCM.expected["test identities"] == 1064
    assert SYSUMM01.expected["train visible images"] + SYSUMM01.expected["train infrared images"] == 34167
    assert RegDB.expected["train visible images"] == 10 * RegDB.expected["train identities"]


def test_counts_of_a_set_by_hand(tiny_root: Path) -> None:
    found = {one.what: one for one in statistics(DN348(tiny_root))}
    assert (
        found["train day images"] == Figure("train day images", "36", 9962)
        and found["train day images"].differs
    )
    assert found["train night identities"].here == "6" and found["test identities"].here == "4"
    assert found["train day images per identity (least / median / most)"].here == "6 / 6 / 6"
    assert found["test night cameras"].here == "1" and found["test identities in both domains"].here == "4"
    assert found["D2N queries"] == Figure("D2N queries", "24") and not found["D2N queries"].differs


@pytest.fixture(scope="module")
def sysu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stand_in("SYSUMM01", tmp_path_factory.mktemp("sets"), workers=1)


def test_the_command_marks_differences(sysu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(sysu.parent))
    result = CliRunner().invoke(app, ["statistics", "--data", "sysumm01"])
    assert result.exit_code == 0, result.exception
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "train visible images 106 22258 differs" in lines and "N2D gallery 30 301 differs" in lines
    assert "train visible images per identity (least / median / most) 6 / 8 / 8" in lines
    assert "train visible cameras 4" in lines and "N2D galleries 10" in lines
    assert lines[-1] == "This is a stand-in, not the real set."


def test_verdicts(sysu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(sysu.parent))
    monkeypatch.setattr(SYSUMM01, "is_stand_in", False)
    monkeypatch.setattr(SYSUMM01, "expected", {"test identities": 8, "N2D indoor gallery": 14})
    text = CliRunner().invoke(app, ["statistics", "--data", "SYSUMM01"]).output
    assert text.strip().endswith("It is as published.") and "differs" not in text
    monkeypatch.setattr(SYSUMM01, "expected", {"test identities": 9, "N2D indoor gallery": 14})
    assert (
        "1 of 2 published numbers differ."
        in CliRunner().invoke(app, ["statistics", "--data", "SYSUMM01"]).output
    )
    unknown = CliRunner().invoke(app, ["statistics", "--data", "nothing"])
    assert isinstance(unknown.exception, ValueError) and "there is no data set 'nothing'" in str(
        unknown.exception
    )
    missing = CliRunner().invoke(app, ["statistics", "--data", "LLCM"])
    assert "has none of LLCM" in str(missing.exception)


def test_sets_of_fastreid_are_counted_without_domains() -> None:
    class Stock:
        train = [("a.jpg", "m_1", "m_0"), ("b.jpg", "m_1", "m_1"), ("c.jpg", "m_2", "m_1")]
        query, gallery = [("d.jpg", 3, 0)], [("e.jpg", 3, 1), ("f.jpg", 4, 1)]

    found = {one.what: one.here for one in statistics(Stock())}
    assert found["train images"] == "3" and found["train identities"] == "2" and found["train cameras"] == "2"
    assert found["test images"] == "3" and not any("night" in what for what in found)
