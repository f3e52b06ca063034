"""Own images in a CSV file: what a row means, how it is scored, and every wrong row in one sentence."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from fastreid.config import get_cfg

from dnreid_plugins.data.datasets import DayNightTable, configure
from dnreid_plugins.data.errors import DataError
from dnreid_plugins.functional.types import Domain

PICTURES = ("a.png", "b c.png", "d.png", "sub/e.png", "n,1.png")


@pytest.fixture(autouse=True)
def _fresh_settings() -> object:
    yield
    configure(get_cfg())


@pytest.fixture
def home(tmp_path: Path, write_images) -> Path:
    write_images(tmp_path, PICTURES)
    return tmp_path


def opened(home: Path, *lines: str, text: str | bytes = "") -> DayNightTable:
    content = text or "".join(f"{line}\n" for line in lines)
    (home / "mine.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    cfg = get_cfg()
    cfg.merge_from_list(["DATASETS.NAMES", "('DayNightTable',)", "DATASETS.CSV", str(home / "mine.csv")])
    configure(cfg)
    return DayNightTable(home / "nowhere")


def test_two_columns_are_enough(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = opened(
            home, "path,domain", "b c.png,Day", f"{home}/a.png,visible", '"n,1.png",IR', "sub/e.png,1"
        )
        names = [(Path(item.path).name, item.domain) for item in data.train]
    assert names == [("a.png", 0), ("b c.png", 0), ("n,1.png", 1), ("e.png", 1)], "canonical order"
    assert {item.pid for item in data.train} == {"daynighttable_-1"}
    assert {item.camid for item in data.train} == {"daynighttable_0", "daynighttable_1"}
    assert data.protocol is None and data.test == []
    assert "4 images to train on, 0 with an identity" in caplog.text and "nothing is scored" in caplog.text


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_separators_columns_and_a_byte_order_mark(home: Path, mark: str) -> None:
    rows = ["\ufeffCamera; PATH;id;Domain;note", "north;a.png;x;day;!", ";;;;", "south;d.png;x;night;!"]
    data = opened(home, *(row.replace(";", mark) for row in rows))
    assert [item.pid for item in data.train] == ["daynighttable_0"] * 2
    assert [item.camid for item in data.train] == ["daynighttable_0", "daynighttable_1"]


def test_labelled_training_images_are_scored_where_there_are_no_others(home: Path) -> None:
    data = opened(
        home,
        "path,domain,id",
        "a.png,day,7",
        "b c.png,day,8",
        "d.png,day,",
        "sub/e.png,night,7",
        '"n,1.png",night,-1',
    )
    assert len(data.train) == 5 and len(data.test) == 3, "only labelled images are scored"
    assert data.protocol is not None
    queries = [Path(data.test[place].path).name for place in data.protocol["D2N"].query]
    assert queries == ["a.png"], "a query needs its identity in the other domain"
    assert len(data.protocol["N2D"].gallery) == 2


def test_splits_say_what_is_scored(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = ["a.png,day,1,train", "b c.png,night,2,", "d.png,day,5,query", "sub/e.png,night,5,gallery"]
    data = opened(home, "path,domain,id,split", *rows, '"n,1.png",night,5,query')
    assert [Path(item.path).name for item in data.train] == ["a.png", "b c.png"]
    assert data.protocol is None, "nothing in the gallery answers the night query"
    caplog.clear()
    data = opened(
        home, "path,domain,id,split", *rows[:2], "d.png,day,5,test", *rows[3:], '"n,1.png",night,5,query'
    )
    protocol = data.protocol
    assert protocol is not None and not caplog.records
    found = {
        one.name: [[Path(data.test[i].path).name for i in part] for part in (one.query, one.gallery)]
        for one in protocol.directions
    }
    assert found == {"D2N": [["d.png"], ["e.png"]], "N2D": [["n,1.png"], ["d.png"]]}
    shared = opened(
        home, "path,domain,id,split", "a.png,day,1,", "d.png,day,1,test", "sub/e.png,night,1,test", rows[1]
    )
    assert shared.train and shared.protocol
    assert "1 identities are in the training and the test list" in caplog.text


GOOD = ("a.png,day", "d.png,night")
UNLABELLED = tuple(f"{row},," for row in GOOD)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ((), r"mine.csv' has no column 'path'; its first line names path, domain"),
        (("path,id", "a.png,1"), "has no column 'domain'"),
        (("path,domain,Path", "a.png,day,b"), "has two columns 'path'"),
        (("path,domain",), "has no row"),
        (("path,domain", *GOOD, ",day"), "line 4: no path"),
        (("path,domain", "a.png,"), "line 2: no domain"),
        (("path,domain", *GOOD, "a.png,dusk"), r"line 4: the domain is 'dusk'; write day, night"),
        (("path,domain,split", "a.png,day,val"), "line 2: the split is 'val'; write one of train, test"),
        (("path,domain", *GOOD, "a.png,night"), "names 'a.png' twice and differently"),
        (("path,domain", 'a.png,"day'), "cannot be read"),
        (("path,domain", "a.png,day\0"), "cannot be read .it has a NUL byte"),
        (("path,domain", "a.png,day"), "names no night image"),
        (
            ("path,domain,id,split", *(f"{row},," for row in GOOD), "b c.png,day,,test"),
            "1 rows for testing have no id",
        ),
        (
            ("path,domain,id,split", *(f"{row},," for row in GOOD), "gone.png,day,1,test"),
            "1 test images do not exist",
        ),
        (("path,domain", *GOOD, "gone.png,day"), "1 of 3 images cannot be used"),
    ],
)
def test_a_wrong_table_is_one_sentence(home: Path, lines: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        _ = opened(home, *lines).train
    assert "\n" not in str(caught.value)


def test_what_is_no_table_is_one_sentence(home: Path) -> None:
    with pytest.raises(DataError, match="no UTF-8 text"):
        opened(home, text="path,domain\nä.png,day\n".encode("latin-1"))
    (home / "mine.csv").unlink()
    with pytest.raises(DataError, match="No such file"):
        DayNightTable(home)
    configure(get_cfg())
    with pytest.raises(DataError, match="set DATASETS.CSV"):
        DayNightTable(home)
    cfg = get_cfg()
    cfg.merge_from_list(["DATASETS.CSV", "x.csv"])
    with pytest.raises(ValueError, match=r"DATASETS.CSV is 'x.csv', which .* does not read"):
        configure(cfg)


def test_a_row_may_come_twice_and_its_name_may_have_a_line_break(home: Path, write_images) -> None:
    write_images(home, ["two\nlines.png"])
    data = opened(home, "path,domain", *GOOD, GOOD[0], '"two\nlines.png",night')
    assert [Path(i.path).name for i in data.train if i.domain == Domain.NIGHT] == ["d.png", "two\nlines.png"]
    assert len(data.train) == 3
