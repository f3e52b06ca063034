"""Several runs on one page, and both kinds of pages in a browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from report_pages import Page, dnreid, run_tiny

from dnreid_plugins.report.page import write_comparison


@pytest.fixture(scope="module")
def runs(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    common = ("TEST.EVAL_PERIOD", "1")
    return [
        run_tiny(folder / "a" / "run", tiny_root, *common),
        run_tiny(folder / "b <i>" / "run", tiny_root, *common, "SEED", "1", "SOLVER.BASE_LR", "0.02"),
    ]


def test_two_runs(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert dnreid("report", *map(str, runs)) == ""
    page = Page(tmp_path / "comparison.html")
    for run, name in zip(runs, ("a/run", "b <i>/run")):
        results = json.loads((run / "results.json").read_text())["DN348"]
        for direction in ("D2N", "N2D"):
            for metric, value in results[direction].items():
                assert page.table[name, "DN348", direction, metric] == f"{value:.2f}"
    text = page.text.split("Code")[0]
    assert "SEED 0 1" in text and "SOLVER.BASE_LR 0.01 0.02" in text and "2 keys differ" in text
    assert "SOLVER.MAX_EPOCH" not in text
    for words in ("DN348: mAP D2N, %", "total loss", "day/clusters", "of 24 queries", "nothing removed"):
        assert words in page.text, words
    assert page.count("i") == 0 and page.count("script") == 0
    assert all(one.startswith(("data:", "#")) for one in page.addresses)


def test_the_scatter_counts_what_the_files_say(runs: list[Path], tmp_path: Path) -> None:
    copies = [shutil.copytree(run, tmp_path / str(n) / "run") for n, run in enumerate(runs)]
    for copy, aps in zip(copies, (("10", "20", "", "7"), ("30", "20", "5", "3"))):
        lines = [f"DN348,D2N,/{copy.parent.name}/day/1/{n}.png,{ap}" for n, ap in enumerate(aps)]
        (copy / "queries.csv").write_text("\n".join(["set,direction,query,ap", *lines, ""]))
    page = Page(write_comparison(copies, tmp_path / "c.html"))
    assert "1/run has the higher AP for 1 of 3 queries, 0/run for 1; mean difference +5.33." in page.text
    (copies[0] / "queries.csv").unlink()
    page = Page(write_comparison(copies, tmp_path / "c.html"))
    assert "0/run: no queries.csv" in page.text and "higher AP" not in page.text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("data", "other-digest"), "it was scored on other images (other-digest, not"),
        (("protocol", "one shot"), "it was scored by another protocol (one shot)"),
        (("METRIC: cosine", "METRIC: euclidean"), "its TEST.METRIC is another one (euclidean, not cosine)"),
    ],
)
def test_runs_of_another_test_are_not_compared(
    change: tuple[str, str], told: str, runs: list[Path], tmp_path: Path
) -> None:
    """Alone they are refused; beside two that may be compared the third is marked and has no row."""
    other = shutil.copytree(runs[1], tmp_path / "other" / "run")
    if change[0] in ("data", "protocol"):
        results = json.loads((other / "results.json").read_text())
        results[change[0]]["DN348"] = change[1]
        (other / "results.json").write_text(json.dumps(results))
    else:
        text = (other / "config.yaml").read_text()
        assert change[0] in text
        (other / "config.yaml").write_text(text.replace(*change))
    with pytest.raises(ValueError, match="These runs cannot be compared: other/run is not compared"):
        write_comparison([runs[0], other], tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()
    page = Page(write_comparison([*runs, other], tmp_path / "some.html"))
    assert told in page.text
    assert {key[0] for key in page.table} == {"a/run", "b <i>/run"}


def test_the_same_run_twice_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="named twice"):
        write_comparison([runs[0], runs[0] / "." / ".." / "run"], tmp_path / "x.html")


@pytest.mark.parametrize("width", [390, 1440])
def test_both_pages_in_a_browser(runs: list[Path], width: int, tmp_path: Path) -> None:
    """No message on the console, no request, nothing wider than the screen, every picture painted."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no Chromium is installed here, so no page is opened in one")
    sync = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed, so no page is opened"
    )
    compared = write_comparison(runs, tmp_path / "both.html")
    with sync.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for path in (runs[0] / "report.html", compared):
            page = chromium.new_page(viewport={"width": width, "height": 900})
            said, asked = [], []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(path.as_uri())
            page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true })")
            assert said == []
            assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            unpainted = page.evaluate("[...document.images].filter(one => !one.naturalWidth).length")
            assert unpainted == 0 and page.evaluate("document.images.length") > 3
        chromium.close()
