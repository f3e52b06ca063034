"""An engineer's two folders: where they are found, what their sub-folders mean, and nothing rendered into them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from fastreid.config import CfgNode, get_cfg

from dnreid_plugins.data.datasets import DN348, DayNightFolder, RegDB, configure
from dnreid_plugins.data.errors import DataError
from dnreid_plugins.dnmini import DNMini
from dnreid_plugins.functional.types import Domain


@pytest.fixture(autouse=True)
def _fresh_settings() -> object:
    yield
    configure(get_cfg())


def settings(*pairs: object) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_list(["DATASETS.NAMES", "('DayNightFolder',)", *pairs])
    configure(cfg)
    return cfg


@pytest.mark.parametrize(
    ("day", "night", "below"), [("day", "night", ""), ("Day", "NIGHT", ""), ("day", "Night", "mycrops")]
)
def test_the_two_folders_are_found(tmp_path: Path, write_images, day: str, night: str, below: str) -> None:
    write_images(tmp_path / below / day, ["a.jpg"])
    write_images(tmp_path / below / night, ["b.jpg", "c.jpg"])
    (tmp_path / "readme.txt").write_text("x")
    data = DayNightFolder(tmp_path)
    assert [Path(item.path).name for item in data.train] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [item.domain for item in data.train] == [0, 1, 1]


def test_another_set_beside_them_is_no_rival(dn_root: Path, write_images) -> None:
    for word in ("day", "night"):
        write_images(dn_root / "mycrops" / word, ["a.jpg"])
    assert len(DayNightFolder(dn_root).train) == 2
    for word in ("day", "night"):
        write_images(dn_root / "second" / word, ["a.jpg"])
    with pytest.raises(DataError, match=r"several such sets \('mycrops', 'second'\); set .*DATASETS.DAY_DIR"):
        DayNightFolder(dn_root)


def test_two_paths_may_be_given(tmp_path: Path, write_images) -> None:
    write_images(tmp_path / "a" / "sunny", ["a.jpg"])
    write_images(tmp_path / "dark", ["b.jpg"])
    settings("DATASETS.DAY_DIR", str(tmp_path / "a" / "sunny"), "DATASETS.NIGHT_DIR", str(tmp_path / "dark"))
    data = DayNightFolder(tmp_path / "nowhere")
    assert [(Path(item.path).name, item.domain) for item in data.train] == [("a.jpg", 0), ("b.jpg", 1)]
    settings("DATASETS.DAY_DIR", str(tmp_path / "gone"), "DATASETS.NIGHT_DIR", str(tmp_path / "dark"))
    with pytest.raises(DataError, match=r"DATASETS.DAY_DIR is .*gone', which is not a folder"):
        DayNightFolder(tmp_path)


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (["DATASETS.DAY_DIR", "x"], "NIGHT_DIR ''; give both"),
        (
            ["DATASETS.NAMES", "('DN348',)", "DATASETS.DAY_DIR", "x", "DATASETS.NIGHT_DIR", "y"],
            "DN348 does not read",
        ),
        (["DATASETS.FOLDER_IDS", "yes"], "FOLDER_IDS is 'yes'; it must be 'auto', 'none' or 'folders'"),
    ],
)
def test_settings_that_cannot_work_are_refused(pairs: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        settings(*pairs)


def test_sub_folders_of_any_name_are_identities(
    tmp_path: Path, write_images, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "day", ["-1/a.jpg", "red van/b.jpg", "red van/c d.jpg", "only day/e.jpg"])
    write_images(tmp_path / "night", ["red van/f.jpg", "-1/deep/g.jpg"])
    with caplog.at_level(logging.INFO):
        data = DayNightFolder(tmp_path)
        pids = {Path(item.path).name: item.pid for item in data.train}
    assert pids["a.jpg"] == pids["g.jpg"] != pids["b.jpg"] == pids["c d.jpg"] == pids["f.jpg"]
    assert len(set(pids.values())) == 3 and not any(str(pid).endswith("_-1") for pid in pids.values())
    assert "used as 3 identities, 2 of them in both domains" in caplog.text
    assert data.protocol is not None and len(data.test) == 6
    names = [Path(data.test[i].path).name for i in data.protocol["D2N"].query]
    assert names == ["a.jpg", "b.jpg", "c d.jpg"], "a query needs its identity in the other domain"
    assert len(data.protocol["N2D"].gallery) == 4
    settings("DATASETS.FOLDER_IDS", "none")
    assert DayNightFolder(tmp_path).protocol is None


@pytest.mark.parametrize(
    ("day", "night", "reason"),
    [
        (["1/a.jpg", "b.jpg"], ["1/c.jpg"], r"1 images are not in a sub-folder, such as .*b\.jpg"),
        (["cam1/a.jpg"], ["cam2/b.jpg"], "no sub-folder is in both domains"),
    ],
)
def test_without_identities_nothing_can_be_scored(
    tmp_path: Path,
    write_images,
    caplog: pytest.LogCaptureFixture,
    day: list[str],
    night: list[str],
    reason: str,
) -> None:
    write_images(tmp_path / "day", day)
    write_images(tmp_path / "night", night)
    with caplog.at_level(logging.INFO):
        data = DayNightFolder(tmp_path)
        assert {item.pid for item in data.train} == {"daynightfolder_-1"}
    assert "without identities" in caplog.text and data.protocol is None
    assert data.test == [] and data.protocol is None and data.query == []
    settings("DATASETS.FOLDER_IDS", "folders")
    with pytest.raises(DataError, match=f"FOLDER_IDS is 'folders', but {reason}"):
        _ = DayNightFolder(tmp_path).train


def test_dnmini_is_never_rendered_among_a_users_images(tmp_path: Path, write_images) -> None:
    for word in ("Day", "night"):
        write_images(tmp_path / word, ["a.jpg"])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="holds your own day/ and night/; .*'DayNightFolder'"):
        DNMini(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_names_with_spaces_stand_in_lists(dn_root: Path, write_images) -> None:
    lists = dn_root / "dn348" / "train_test_split"
    write_images(dn_root / "dn348" / "day", ["00007/front left 2.JPG", "00007/cut.jpg.png"])
    with (lists / "train_list_day.txt").open("a") as file:
        file.write("00007/front left 2.JPG 7 1\n00007/cut.jpg.png\n")
    found = {Path(item.path).name for item in DN348(dn_root).train if item.domain == Domain.DAY}
    assert {"front left 2.JPG", "cut.jpg.png"} <= found


def test_names_with_spaces_stand_in_regdbs_lists(tmp_path: Path, write_images) -> None:
    base = tmp_path / "RegDB"
    (base / "idx").mkdir(parents=True)
    for word in ("visible", "thermal"):
        write_images(base, [f"{word}/one two/v 0.bmp"])
        (base / "idx" / f"train_{word}_1.txt").write_text(f"{word}/one two/v 0.bmp 5\n")
    data = RegDB(tmp_path)
    assert [(Path(item.path).name, item.pid) for item in data.train] == [("v 0.bmp", "regdb_5")] * 2
