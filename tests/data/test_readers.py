"""The registered readers: items, order, protocol, fast-reid's interface, and every refusal."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from fastreid.config import get_cfg
from fastreid.data.datasets import DATASET_REGISTRY

from dnreid_plugins.data.datasets import DN348, DayNightFolder, DNWild, RegDB, configure
from dnreid_plugins.data.datasets.settings import SETTINGS
from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.images import read_image
from dnreid_plugins.dnmini import DNMini
from dnreid_plugins.functional.types import Domain


def test_all_are_registered_under_their_names() -> None:
    for reader in (DN348, DNWild, DNMini, RegDB, DayNightFolder):
        assert DATASET_REGISTRY.get(reader.__name__) is reader


def test_training_items_are_canonical_whatever_the_list_order(dn_root: Path) -> None:
    train = DN348(dn_root).train
    assert [item.domain for item in train] == [Domain.DAY] * 6 + [Domain.NIGHT] * 9
    assert train[:6] == sorted(train[:6]) and train[6:] == sorted(train[6:])
    assert (
        {item.pid for item in train[:6]}
        == {item.pid for item in train[6:]}
        == {"dn348_7", "dn348_9", "dn348_10"}
    )
    assert {item.camid for item in train[6:]} == {"dn348_1"}
    assert all(read_image(item.path) for item in train)
    for path in (dn_root / "dn348" / "train_test_split").iterdir():
        path.write_text("\n".join(sorted(path.read_text().split())))
    assert DN348(dn_root).train == train


def test_test_half_has_each_image_once_and_both_directions(dn_root: Path) -> None:
    data = DN348(dn_root)
    assert [(item.pid, item.camid, item.domain) for item in data.test] == [(3, 0, 0)] * 2 + [
        (12, 0, 0)
    ] * 2 + [(3, 1, 1)] * 3 + [(12, 1, 1)] * 3
    assert data.protocol["D2N"].query.tolist() == data.protocol["N2D"].gallery.tolist() == [0, 1, 2, 3]
    assert data.protocol["D2N"].gallery.tolist() == data.protocol["N2D"].query.tolist() == list(range(4, 10))
    assert data.query == data.test[:4] and data.gallery == data.test[4:]


def test_fastreid_builders_take_the_reader(dn_root: Path) -> None:
    data = DATASET_REGISTRY.get("DN348")(root=str(dn_root), combineall=False)
    assert data.get_num_pids(data.train) == 3 and data.get_num_cams(data.query) == 1
    data.show_train()
    data.show_test()
    assert len(data) == 15 and len(DN348(dn_root, mode="gallery")) == 6
    with pytest.raises(ValueError, match="mode is 'val'"):
        DN348(dn_root, mode="val")


def test_combineall_adds_the_test_half_with_domains(dn_root: Path) -> None:
    data = DN348(dn_root, combineall=True)
    assert len(data.train) == 25
    assert sum(item.domain for item in data.train) == 15
    assert {item.pid for item in data.train} >= {"dn348_7", "dn348_test_3"}


def test_counts_that_differ_are_named(dn_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert DN348(dn_root).train
    assert "train day images 6 (published: 9962, difference -9956)" in caplog.text


def test_a_test_half_alone_is_enough_to_evaluate(dn_root: Path) -> None:
    lists = dn_root / "dn348" / "train_test_split"
    for path in lists.glob("train_*"):
        path.unlink()
    data = DN348(dn_root)
    assert len(data.test) == 10
    with pytest.raises(
        DataError, match=r"no day train list .*train_list_day.txt, day_train.txt, train_day.txt"
    ):
        _ = data.train


def test_shared_identities_are_reported(dn_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists = dn_root / "dn348" / "train_test_split"
    shutil.copy(lists / "test_list_day.txt", lists / "train_list_day.txt")
    data = DN348(dn_root)
    with caplog.at_level(logging.WARNING):
        assert data.train and data.test
    assert "2 identities are in the training and the test list" in caplog.text


@pytest.mark.parametrize("layout", ["usl", "readme"])
def test_other_released_layouts_are_understood(dn_root: Path, layout: str) -> None:
    base = dn_root / "dn348"
    expected = [Path(item.path).name for item in DN348(dn_root).train]
    for path in list((base / "train_test_split").iterdir()):
        split, _, word = path.stem.split("_")
        name = f"{word}_{split}.txt" if layout == "usl" else f"{split}_{word}.txt"
        path.rename((base / "train_test_split" if layout == "usl" else base) / name)
    if layout == "readme":
        (base / "train_test_split").rmdir()
        for word in ("day", "night"):
            for split in ("train", "test"):
                shutil.copytree(base / word, base / f"{split}_{word}")
            shutil.rmtree(base / word)
        base.rename(dn_root / "DN348")
    assert [Path(item.path).name for item in DN348(dn_root).train] == expected


def test_dnwild_queries_are_a_part_of_the_gallery(dn_root: Path) -> None:
    base = (dn_root / "dn348").rename(dn_root / "dnwild")
    lists = base / "train_test_split"
    for word in ("day", "night"):
        (lists / f"{word}_query.txt").write_text(
            f"00003/001.jpg\n00012/000.jpg some label\n{'00012/001.jpg'}\n"
        )
    data = DNWild(dn_root)
    assert len(data.test) == 10
    for direction, asked, answered in (("D2N", Domain.DAY, 6), ("N2D", Domain.NIGHT, 4)):
        query, gallery = (
            [data.test[i] for i in index]
            for index in (data.protocol[direction].query, data.protocol[direction].gallery)
        )
        assert [(item.pid, item.domain) for item in query] == [(3, asked), (12, asked), (12, asked)]
        assert len(gallery) == answered and {item.domain for item in gallery} == {asked.other}
    assert data.query == [data.test[i] for i in data.protocol["D2N"].query]
    cfg = get_cfg()
    cfg.DATASETS.DNWILD_ALL_QUERIES = True
    configure(cfg)
    every = DNWild(dn_root).protocol
    configure(get_cfg())
    assert [len(every[d].query) for d in ("D2N", "N2D")] == [4, 6]
    assert [len(every[d].gallery) for d in ("D2N", "N2D")] == [6, 4]


def test_dnwild_needs_its_query_list(dn_root: Path) -> None:
    (dn_root / "dn348").rename(dn_root / "dnwild")
    with pytest.raises(DataError, match="no day query list"):
        _ = DNWild(dn_root).test


def test_missing_root_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"nowhere' does not exist; set \$FASTREID_DATASETS .* 'dn348'"):
        DN348(tmp_path / "nowhere")
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    with pytest.raises(DataError, match="has none of dnwild, DNWild, DN-Wild"):
        DNWild()


def test_missing_images_empty_lists_and_bad_lines_are_refused(dn_root: Path) -> None:
    base = dn_root / "dn348"
    (base / "night" / "00009" / "001.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of the 9 images .* the first: 00009/001.jpg"):
        _ = DN348(dn_root).train
    night = base / "train_test_split" / "train_list_night.txt"
    night.write_text("\n \n")
    with pytest.raises(DataError, match="names no night image; both domains"):
        _ = DN348(dn_root).train
    for line in ("a.jpg", "x/a.jpg", "7/"):
        night.write_text(line)
        with pytest.raises(DataError, match="line 1"):
            _ = DN348(dn_root).train


@pytest.fixture
def regdb_root(tmp_path: Path, write_images) -> Path:
    base = tmp_path / "RegDB"
    (base / "idx").mkdir(parents=True)
    for word, folder in (("visible", "Visible"), ("thermal", "Thermal")):
        for trial in (1, 2):
            for split, people in (("train", (trial, 4)), ("test", (3, 5))):
                paths = [f"{folder}/{person}/{word[0]}_{i}.bmp" for person in people for i in range(2)]
                write_images(base, paths)
                lines = [f"{path} {people.index(int(path.split('/')[1]))}" for path in paths]
                (base / "idx" / f"{split}_{word}_{trial}.txt").write_text("\n".join(lines))
    return tmp_path


def test_regdb_reads_the_trial(regdb_root: Path) -> None:
    first, second = RegDB(regdb_root), RegDB(regdb_root, trial=2)
    assert "Visible/1/v_0.bmp" in first.train[0].path and "Visible/2/v_0.bmp" in second.train[0].path
    assert [item.domain for item in first.train] == [0] * 4 + [1] * 4
    assert [item.pid for item in first.train] == ["regdb_0"] * 2 + ["regdb_1"] * 2 + ["regdb_0"] * 2 + [
        "regdb_1"
    ] * 2
    assert [(item.pid, item.camid) for item in first.test][::2] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert "RegDB trial 2" in str(second.protocol) and "one of 10 repetitions" in str(second.protocol)


def test_regdb_trial_comes_from_the_config(regdb_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SETTINGS, "regdb_trial", 1)
    monkeypatch.setattr(SETTINGS, "dnmini_seed", 0)
    cfg = get_cfg()
    cfg.DATASETS.REGDB_TRIAL, cfg.DATASETS.DNMINI_SEED = 2, 5
    configure(cfg)
    assert RegDB(regdb_root).trial == 2 and SETTINGS.dnmini_seed == 5
    with pytest.raises(ValueError, match="trial is 11; set DATASETS.REGDB_TRIAL"):
        RegDB(regdb_root, trial=11)
    with pytest.raises(DataError, match=r"train_visible_3\.txt"):
        _ = RegDB(regdb_root, trial=3).train


@pytest.mark.parametrize("line", ["Visible/1/v_0.bmp", "Visible/1/v_0.bmp x", "Visible/1/v_0.bmp 1 2"])
def test_regdb_lines_need_path_and_label(regdb_root: Path, line: str) -> None:
    (regdb_root / "RegDB" / "idx" / "train_visible_1.txt").write_text(line)
    with pytest.raises(DataError, match="line 1"):
        _ = RegDB(regdb_root).train


def test_two_folders_of_crops_need_no_lists(tmp_path: Path, write_images) -> None:
    write_images(tmp_path / "day", ["b.jpg", "sub/a.JPG", ".hidden.jpg"])
    write_images(tmp_path / "night", ["c.png"])
    (tmp_path / "day" / "notes.txt").write_text("x")
    data = DayNightFolder(tmp_path)
    assert [Path(item.path).name for item in data.train] == ["b.jpg", "a.JPG", "c.png"]
    assert [item.domain for item in data.train] == [0, 0, 1]
    assert data.test == [] and data.protocol is None and data.query == []
    assert np.unique([item.pid for item in data.train]).size == 1
    (tmp_path / "night" / "c.png").unlink()
    with pytest.raises(DataError, match="names no night image"):
        _ = DayNightFolder(tmp_path).train
    with pytest.raises(DataError, match="DayNightFolder: the data root"):
        DayNightFolder(tmp_path / "night")


def test_dnmini_is_read_by_the_reader_of_dn348(dn_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dnreid_plugins.dnmini import reader

    asked = []

    def ensure(root: Path, seed: int = 0, *, name: str) -> Path:
        asked.append((root, seed, name))
        return root / "dn348"

    monkeypatch.setattr(reader, "ensure_dnmini", ensure)
    data = DNMini(dn_root, seed=3)
    assert asked == [(dn_root, 3, "dnmini")]
    assert [item.path for item in data.train] == [item.path for item in DN348(dn_root).train]
    assert data.train[0].pid == "dnmini_7" and str(data.protocol).startswith(
        "DNMini: D2N 4 queries, 6 in the"
    )
