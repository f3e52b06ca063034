"""`dnreid index` and `dnreid search` as a user types them: what is found, what is written, what is refused."""

from __future__ import annotations

import csv
import html.parser
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastreid.config import CfgNode
from PIL import Image
from retrieval_world import pick, trained_run

from dnreid_plugins.commands.app import main
from dnreid_plugins.retrieval import page
from dnreid_plugins.retrieval.index import Index
from dnreid_plugins.retrieval.matcher import Matcher
from dnreid_plugins.retrieval.threshold import Direction, Threshold


@pytest.fixture
def run(tiny_cfg: CfgNode) -> str:
    return str(trained_run(tiny_cfg))


@pytest.fixture
def gallery(run: str, tmp_path: Path, capsys: Any) -> str:
    out = str(tmp_path / "gallery")
    main(["index", run, *pick("night", 6), "--domain", "night", "--out", out])
    assert "6 images (flat)" in capsys.readouterr().out
    return out


def keep_threshold(run: str, gallery: str, value: float) -> None:
    one = Direction(value, 0.001, (0.0005, 0.002), 0.5, 10, 1000)
    Threshold(Index.load(gallery).fingerprint, 0.001, {"across": one}).save(run)


def test_all_three_files_say_what_the_search_found(
    run: str, gallery: str, tmp_path: Path, capsys: Any
) -> None:
    queries = pick("day", 2)
    expected = Matcher.load(run).search(queries, "day", Index.load(gallery), 4)
    middle = sorted(m.score for one in expected for m in one.matches)[4]
    keep_threshold(run, gallery, middle)
    for ending in ("csv", "json", "html"):
        out = tmp_path / f"m.{ending}"
        main(["search", gallery, *queries, "--domain", "day", "--k", "4", "--out", str(out)])
    printed = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "m.csv").open(newline="")))
    content = json.loads((tmp_path / "m.json").read_text())
    flat = [(one.path, m.path, m.score) for one in expected for m in one.matches]
    assert [(r["query"], r["match"]) for r in rows] == [one[:2] for one in flat]
    assert [(r["query"], r["match"]) for r in content["matches"]] == [one[:2] for one in flat]
    assert [float(r["score"]) for r in rows] == pytest.approx([one[2] for one in flat], abs=1e-6)
    assert [r["rank"] for r in rows] == ["1", "2", "3", "4"] * 2
    assert [r["accepted"] for r in rows] == [str(one[2] >= middle).lower() for one in flat]
    assert content["threshold"] == {"across": middle}
    text = (tmp_path / "m.html").read_text()
    assert text.count('class="accepted"') == 4 and text.count('class="below"') == 4
    assert text.count("data:image/jpeg;base64,") == 10
    assert (
        f"A match counts from {middle:.3f} on" in printed
        and printed.count("(0.") + printed.count("(-0.") >= 12
    )


class Links(html.parser.HTMLParser):
    """Everything that a page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, value or "") for name, value in attributes if name in ("src", "href", "onerror")]
        self.found += [(tag, "")] if tag in ("script", "link", "iframe") else []


def test_names_are_shown_and_never_run(run: str, tmp_path: Path, capsys: Any) -> None:
    home = tmp_path / "odd"
    home.mkdir()
    names = [
        "<img src=x onerror=alert(1)>.png",
        "a\x1b[31m\nb.png",
        "'q\".png",
        os.fsdecode(b"\xff\xfe.png"),
        "é.png",
    ]
    for path, name in zip(pick("night", 5), names):
        shutil.copy(path, home / name)
    out, table, matches = str(tmp_path / "g"), tmp_path / "m.csv", tmp_path / "m.html"
    main(["index", run, str(home), "--domain", "night", "--out", out])
    for file in (table, matches):
        main(["search", out, str(home), "--domain", "night", "--k", "5", "--out", str(file)])
    assert "\x1b" not in capsys.readouterr().out
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert {row["match"] for row in csv.DictReader(file)} == {str(home / name) for name in names}
    links = Links()
    links.feed(matches.read_text(encoding="utf-8"))
    assert {tag for tag, _ in links.found} == {"img"}
    assert all(value.startswith("data:image/jpeg;base64,") for _, value in links.found)
    assert "default-src 'none'" in matches.read_text()


def test_a_gallery_image_that_is_gone_leaves_its_place(run: str, tmp_path: Path) -> None:
    home, out = tmp_path / "crops", str(tmp_path / "g")
    home.mkdir()
    for path in pick("night", 2):
        shutil.copy(path, home)
    main(["index", run, str(home), "--domain", "night", "--out", out])
    next(home.iterdir()).unlink()
    page.thumbnail.cache_clear()
    main(["search", out, *pick("day", 1), "--domain", "day", "--out", str(tmp_path / "m.html")])
    text = (tmp_path / "m.html").read_text()
    assert text.count("cannot be read") == 1 and text.count("data:image/jpeg") == 2


def test_a_page_stops_at_its_limit(run: str, gallery: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(page, "PICTURES", 14)
    main(
        ["search", gallery, *pick("day", 5), "--domain", "day", "--k", "6", "--out", str(tmp_path / "m.html")]
    )
    text = (tmp_path / "m.html").read_text()
    assert text.count("<section>") == 2 and "3 more queries are not shown" in text


def test_tables_say_domains_and_identities(run: str, tmp_path: Path) -> None:
    table = tmp_path / "in put.csv"
    shutil.copy(pick("day", 1)[0], tmp_path / "beside.png")
    lines = [["Path", "Domain", "ID"], ["beside.png", "visible", "7"], [pick("night", 1)[0], "", "8"]]
    with table.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(lines)
    out = str(tmp_path / "g")
    main(["index", run, str(table), "--domain", "night", "--out", out])
    index = Index.load(out)
    assert index.paths == [str(tmp_path / "beside.png"), pick("night", 1)[0]]
    assert index.domains.tolist() == [0, 1] and index.ids == ["7", "8"]
    query = [
        "search",
        out,
        *pick("night", 1),
        "--domain",
        "night",
        "--k",
        "9",
        "--out",
        str(tmp_path / "m.csv"),
    ]
    for among, count in (([], 2), (["--among", "day"], 1)):
        main([*query, *among])
        with (tmp_path / "m.csv").open(newline="") as file:
            found = [row["match"] for row in csv.DictReader(file)]
        assert len(found) == count and found[-1] == str(tmp_path / "beside.png")


def test_the_run_may_have_moved(run: str, gallery: str, tmp_path: Path) -> None:
    keep_threshold(run, gallery, 0.5)
    moved = Path(run).rename(tmp_path / "elsewhere")
    query = ["search", gallery, *pick("day", 1), "--domain", "day"]
    with pytest.raises(SystemExit, match="needs its model, and its run was .*; say with --run where it is"):
        main(query)
    main([*query, "--run", str(moved), "--out", str(tmp_path / "m.json")])
    assert json.loads((tmp_path / "m.json").read_text())["threshold"] == {"across": 0.5}


def test_the_threshold_of_another_model_is_not_used(
    run: str, gallery: str, tmp_path: Path, capsys: Any
) -> None:
    keep_threshold(run, gallery, 0.5)
    path = Path(run) / "threshold.json"
    path.write_text(path.read_text().replace(Index.load(gallery).fingerprint, "0" * 12))
    main(["search", gallery, *pick("day", 1), "--domain", "day"])
    assert "No threshold is known for this model" in capsys.readouterr().out
    path.write_text("{")
    with pytest.raises(SystemExit, match=r"threshold\.json is damaged; run `dnreid calibrate` again"):
        main(["search", gallery, *pick("day", 1), "--domain", "day"])


def test_bad_images_are_named_or_left_out(run: str, tmp_path: Path, capsys: Any) -> None:
    home, out = tmp_path / "crops", tmp_path / "g"
    home.mkdir()
    for number, path in enumerate(pick("night", 3)):
        shutil.copy(path, home / f"{number}.png")
    whole = (home / "1.png").read_bytes()
    (home / "1.png").write_bytes(whole[:200] + bytes(40) + whole[240:])  # header and end are good
    (home / "none.jpg").write_bytes(b"no image")
    command = ["index", run, str(home), "--domain", "night", "--out", str(out)]
    with pytest.raises(
        SystemExit, match=r"1 of 4 images cannot be read, the first: .*none\.jpg.* with --skip-bad"
    ):
        main(command)
    assert not out.exists()
    main([*command, "--skip-bad"])
    assert [Path(path).name for path in Index.load(out).paths] == ["0.png", "2.png"]
    assert "1 were left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["index", "{run}", "nowhere", "--domain", "day", "--out", "{tmp}/x"],
            "'nowhere' is no folder, table",
        ),
        (["index", "{run}", "{tmp}/empty", "--domain", "day", "--out", "{tmp}/x"], "holds no image"),
        (["index", "{run}", "{image}", "--out", "{tmp}/x"], "give --domain day or night"),
        (["index", "{run}", "{image}", "--domain", "day", "--out", "{run}"], "exists and is no gallery"),
        (["index", "{tmp}/empty", "{image}", "--domain", "day", "--out", "{tmp}/x"], "so it is no run"),
        (["index", "{run}", "{tmp}/bad.csv", "--domain", "day", "--out", "{tmp}/x"], "has no column 'path'"),
        (
            ["index", "{run}", "{tmp}/dusk.csv", "--out", "{tmp}/x"],
            "line 2: the domain is 'dusk'; write day",
        ),
        (["search", "{tmp}/empty", "{image}", "--domain", "day"], "is no gallery; make one with"),
        (
            ["search", "{gallery}", "{image}", "--domain", "day", "--out", "{tmp}/m.xls"],
            r"name a file \.html, \.csv",
        ),
    ],
)
def test_refusals_are_one_sentence(
    run: str, gallery: str, tmp_path: Path, words: list[str], sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("file,domain\na.png,day\n")
    (tmp_path / "dusk.csv").write_text("path,domain\na.png,dusk\n")
    known = {"run": run, "tmp": tmp_path, "image": pick("day", 1)[0], "gallery": gallery}
    with pytest.raises(SystemExit) as refused:
        main([word.format(**known) for word in words])
    text = str(refused.value.code)
    assert text.startswith("error: ") and "\n" not in text and re.search(sentence, text), text
    assert not (tmp_path / "x").exists()


def test_every_kind_of_image_is_searched(run: str, gallery: str, tmp_path: Path, capsys: Any) -> None:
    home = tmp_path / "kinds"
    home.mkdir()
    picture = Image.open(pick("day", 1)[0])
    for mode, name in (
        ("L", "l.png"),
        ("CMYK", "c.jpg"),
        ("I;16", "i.png"),
        ("P", "p.gif"),
        ("RGBA", "a.webp"),
    ):
        (picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)).save(home / name)
    picture.save(home / "moving.gif", save_all=True, append_images=[picture] * 2)
    main(["search", gallery, str(home), "--domain", "day", "--k", "1", "--out", str(tmp_path / "m.csv")])
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 7
