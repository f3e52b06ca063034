"""The page at the end of a run, through the door that the user uses: a tiny run on the command line."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path

import pytest
from PIL import Image
from report_pages import Page, dnreid, run_tiny

from dnreid_plugins.evaluation import evaluator
from dnreid_plugins.report import at_end
from dnreid_plugins.report.page import write_report


@pytest.fixture(scope="module")
def finished(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "first <run> & 'more'"
    return run_tiny(folder, tiny_root, "TEST.WITHIN_DOMAIN", "True")


@pytest.fixture(scope="module")
def page(finished: Path) -> Page:
    return Page(finished / "report.html")


def test_the_page_needs_nothing_else(page: Page) -> None:
    assert len(page.addresses) > 100
    assert all(one.startswith(("data:", "#")) for one in page.addresses)
    assert "http:" not in page.source and "https:" not in page.source and "url(" not in page.source
    assert page.count("script") == 0 and page.count("img") > 100


def test_the_table_says_what_results_json_says(finished: Path, page: Page) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert len(page.table) == 4 * 5
    for (_, name, direction, metric), shown in page.table.items():
        assert shown == f"{results[name][direction][metric]:.2f}"
    assert results["protocol"]["DN348"] in page.text and "nothing removed" in page.text


def test_frames_and_average_precision_are_those_of_the_metric(finished: Path, page: Page) -> None:
    """AP follows from the ranks that a list says, the frames from the same ranks, the mean of all is the mAP."""
    assert {one.search for one in page.lists} == {"D2N", "N2D"} and len(page.lists) == 2 * 9
    for one in page.lists:
        precision = [(place + 1) / rank for place, rank in enumerate(one.correct_ranks)]
        assert one.ap == pytest.approx(100.0 * sum(precision) / len(precision))
        assert [rank for rank, _ in one.tiles] == [str(rank) for rank in range(1, 11)]
        assert [right for _, right in one.tiles] == [rank in one.correct_ranks for rank in range(1, 11)]
    assert any(not right for one in page.lists for _, right in one.tiles)
    results = json.loads((finished / "results.json").read_text())["DN348"]
    rows = list(csv.DictReader((finished / "queries.csv").open()))
    for direction in ("D2N", "N2D"):
        aps = [float(row["ap"]) for row in rows if row["direction"] == direction]
        assert len(aps) == 24
        assert sum(aps) / len(aps) == pytest.approx(results[direction]["mAP"], abs=1e-3)
        shown = [one.ap for one in page.lists if one.search == direction]
        assert max(shown) == pytest.approx(max(aps), abs=1e-3)
        assert min(shown) == pytest.approx(min(aps), abs=1e-3)
    assert "the mAP of the results" in page.text and "while the results say" not in page.text


def test_the_page_shows_every_part(page: Page) -> None:
    for words in (
        "total loss",
        "learning rate",
        "images in a cluster, %",
        "adjusted Rand index",
        "Clusters of the last epoch",
        "by domain",
        "by identity",
        "by cluster",
        "across: day and night",
        "Grad-CAM",
        "Highest AP",
        "Lowest AP",
        "At random",
        "config.yaml",
        "The whole config",
        "DATALOADER.ITERS_PER_EPOCH",  # tiny.yml sets it over its base
    ):
        assert words in page.text, words
    assert "could not be made" not in page.text and "no image" not in page.text
    assert "SOLVER.WEIGHT_DECAY_NORM" not in page.text.split("The whole config")[0]  # the base sets it


def test_the_command_makes_the_same_page_from_the_folder(
    finished: Path, page: Page, tiny_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Weights and images are read again; the table and every rank list stay."""
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    out, atlas = tmp_path / "again.html", tmp_path / "images.parquet"
    assert dnreid("report", str(finished), "--out", str(out), "--atlas", str(atlas)) == ""
    again = Page(out)
    assert again.table == page.table
    assert again.lists == page.lists
    import pyarrow.parquet as pq

    table = pq.read_table(atlas)
    rows = table.to_pylist()
    wanted = {"path", "split", "dataset", "domain", "identity", "cluster", "x", "y", "ap", "image"}
    assert set(table.column_names) == wanted
    assert len(rows) == 72 + 48 and {row["split"] for row in rows} == {"train", "test"}
    test = [row for row in rows if row["split"] == "test"]
    aps = {row["query"]: float(row["ap"]) for row in csv.DictReader((finished / "queries.csv").open())}
    assert {row["path"]: row["ap"] for row in test} == pytest.approx(aps, abs=1e-3)
    assert all(row["image"]["bytes"][:3] == b"\xff\xd8\xff" and row["cluster"] is None for row in test)
    clusters = {row["path"]: row["cluster"] for row in csv.DictReader((finished / "clusters.csv").open())}
    for row in rows:
        if row["split"] == "train" and row["domain"] == "day":
            number = clusters[row["path"]]
            assert row["cluster"] == (None if number == "-1" else f"day {number}") and row["ap"] is None


def test_moved_images_leave_places_and_a_sentence(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    rows = (finished / "clusters.csv").read_text()
    folder = shutil.copytree(finished, tmp_path / "moved")
    (folder / "clusters.csv").write_text(rows.replace("/dn348/", "/gone/"))
    moved = Page(write_report(folder))
    assert (
        moved.text.count("no image") > 10 and "images of this page cannot be shown; the first:" in moved.text
    )
    assert "The test images are not shown:" in moved.text
    assert len(moved.table) == 20 and not moved.lists


def test_a_folder_without_weights_says_so(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "light"
    folder.mkdir()
    for name in ("config.yaml", "results.json", "health.jsonl", "metrics.json", "clusters.csv"):
        shutil.copy(finished / name, folder)
    light = Page(write_report(folder))
    assert "The folder has no weights (model_final.pth)" in light.text
    assert len(light.table) == 20 and "total loss" in light.text and "day cluster" in light.text
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(
        config.replace("AUDIT:\n", "AUDIT:\n  OLD_KEY: 3\n") + "GONE:\n  KEY: [1, a]\n"
    )
    (folder / "clusters.csv").write_text("path,domain,cluster,matched_cluster,score\nx,day,no number,,\n")
    (folder / "health.jsonl").write_text('{"epoch": 1, "day/clusters": NaN}\n{"epoch"')
    (folder / "results.json").unlink()
    poor = Page(write_report(folder))
    assert (
        "does not know these keys of config.yaml, so they are left out: AUDIT.OLD_KEY, GONE.KEY." in poor.text
    )
    assert "trained on DN348" in poor.text
    assert "clusters.csv is damaged" in poor.text and "results.json is missing" in poor.text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "nowhere has no config.yaml"),
        (["RUN", "--out", "no/such/page.html"], "make it first"),
        (["RUN", "--out", "."], "is a folder"),
        (["RUN", "RUN2", "--atlas", "x.parquet"], "--atlas is of one run"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    words: list[str], told: str, finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    said = dnreid("report", *(str(finished) if word == "RUN" else word for word in words))
    assert said.startswith("error: ") and told in said
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_fails_does_not_lose_the_run(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(at_end, "write_report", full)
    with caplog.at_level(logging.WARNING, "dnreid_plugins"):
        run_tiny(tmp_path / "out", tiny_root, "TEST.EVAL_START", "False", "SOLVER.MAX_EPOCH", "1")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["finished"]
    assert not (tmp_path / "out" / "report.html").exists()
    log = (tmp_path / "out" / "log.txt").read_text()
    assert (
        "The report could not be written ([Errno 28] No space left on device); the run itself is complete"
        in log
    )


def test_a_run_that_is_cut_has_no_page_and_one_without_the_key_neither(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dnreid_plugins.engine.trainer import CrossDomainTrainer

    made: list[object] = []
    monkeypatch.setattr(at_end, "write_report", lambda *args, **kwargs: made.append(args))
    short = ("TEST.EVAL_START", "False", "SOLVER.MAX_EPOCH", "1")
    run_tiny(tmp_path / "off", tiny_root, *short, "REPORT.ENABLED", "False")
    assert not made
    run_step = CrossDomainTrainer.run_step

    def cut(trainer: CrossDomainTrainer) -> None:
        assert evaluator._KEPT.get() == {}  # those of the start have been let go
        if trainer.iter == 2:
            raise KeyboardInterrupt
        run_step(trainer)

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
        patch.setattr(CrossDomainTrainer, "run_step", cut)
        run_tiny(tmp_path / "cut", tiny_root, "SOLVER.MAX_EPOCH", "1")
    assert not made
    run_tiny(tmp_path / "whole", tiny_root, *short)
    assert len(made) == 1


ODD = ("<script>alert(1)<", '"><img src=x onerror=alert(1)>', "a\nb", "日本 $x_1$", "{{ 7 * 7 }}")


def test_sets_without_identities_and_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders of crops: what needs no identity is there, with a sentence why the rest is not; nothing runs."""
    for domain, low in (("day", 100), ("night", 10)):
        (tmp_path / domain).mkdir()
        for number in range(10):
            name = f"{ODD[number % 5]}{number}.png"
            shade = low + 40 * (number % 2)
            Image.new("RGB", (30, 20), (shade, 255 - shade, 7 * number)).save(tmp_path / domain / name)
    folder = tmp_path / 'out <b>"run"'
    words = ["DATASETS.NAMES", "('DayNightFolder',)", "DATASETS.DAY_DIR", str(tmp_path / "day")]
    run_tiny(folder, tmp_path, *words, "DATASETS.NIGHT_DIR", str(tmp_path / "night"), "CLUSTER.EPS", "0.9")
    odd = Page(folder / "report.html")
    assert "No test set of this run has identities" in odd.text and not odd.lists and not odd.table
    assert {"html", "head", "body", "section", "img"} <= {tag for tag, _ in odd.tags}
    assert odd.count("script") == 0 and odd.count("b") == odd.source.count("<b>")
    assert not [name for _, found in odd.tags for name in found if name.startswith("on")]
    assert "<script" not in odd.source and "{{ 7 * 7 }}" in odd.source
    shown = {found["title"] for tag, found in odd.tags if tag == "img" and "title" in found}
    for name in ODD:
        assert any(name in one for one in shown), name
    assert "by cluster" in odd.text and "could not be made" not in odd.text
