"""Clusters on the page: what is shown, what each correction does, and that it lasts."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from serve_world import CLUSTERS, NAMES, SENT, SIZE, client
from starlette.testclient import TestClient

from dnreid_plugins.functional.types import Domain
from dnreid_plugins.labels.corrections import CorrectionRow, read_corrections, said_of
from dnreid_plugins.retrieval.web.clusters import ClusterTable
from dnreid_plugins.retrieval.web.site import Clusters, Site

N = len(NAMES)


@pytest.fixture
def run(world: Path, tmp_path: Path) -> Path:
    """A run of its own: only the list of clusters, whose images lie elsewhere."""
    shutil.copy(world / "run" / "clusters.csv", tmp_path / "clusters.csv")
    return tmp_path


@pytest.fixture
def page(run: Path) -> TestClient:
    return client(run)


def told(page: TestClient, verb: str, cluster: str = "day-0", other: str = "", **data: Any) -> Any:
    """Send the form of a correction as the newest page has it."""
    (domain, number), (other_domain, other_number) = (
        one.split("-", 1) for one in (cluster, other or "day-0")
    )
    shown = re.search(r'name="revision" value="(\d+)"', page.get("/clusters").text)
    fields = {"revision": shown[1] if shown else 0, "domain": domain, "number": number}
    fields |= {"other_domain": other_domain, "other": other_number} if other else {}
    return page.post(f"/correct/{verb}", data={**fields, **data}, headers=SENT)


def clusters(page: TestClient) -> dict[str, list[int]]:
    """Name of each cluster -> the images on its page; domains have images 0 .. 8 and 9 .. 17."""
    found = {}
    for domain in ("day", "night"):
        for number in range(-1, 8):
            answer = page.get(f"/clusters/{domain}/{number}")
            if answer.status_code == 200:
                own = answer.text.split("</form>")[0 if 'class="undo"' not in answer.text else 1]
                shown = sorted(map(int, re.findall(r"/picture/clusters/(\d+)/small", own)))
                found[f"{domain} {number}"] = shown
    return found


def partner(page: TestClient, cluster: str) -> str | None:
    text = page.get(f"/clusters/{cluster.replace(' ', '/')}").text
    found = re.search(r'<h2><a href="/clusters/(\w+)/(\d+)">.*?matched', text, re.DOTALL)
    return f"{found[1]} {found[2]}" if found and "Not matched" not in text else None


BEFORE = {f"day {c}": [SIZE * c + i for i in range(SIZE)] for c in range(CLUSTERS)} | {
    f"night {c}": [N + SIZE * (2 - c) + i for i in range(SIZE)] for c in range(CLUSTERS)
}


def test_the_clusters_are_those_of_the_run(page: TestClient) -> None:
    assert clusters(page) == BEFORE
    assert {name: partner(page, name) for name in BEFORE} == {
        f"{domain} {c}": f"{other} {2 - c}"
        for domain, other in (("day", "night"), ("night", "day"))
        for c in range(3)
    }
    assert page.get("/").headers["location"] == "/clusters"
    assert page.get("/search?image=0").status_code == 404


def test_the_order_of_the_clusters(run: Path, page: TestClient) -> None:
    def order(name: str) -> list[int]:
        text = page.get(f"/clusters?domain=day&order={name}").text
        return [int(one) for one in re.findall(r'href="/clusters/day/(\d+)">\s*<p class="heading"><b>', text)]

    assert order("size") == [0, 1, 2] and order("matched") == [2, 1, 0] and order("uncertain") == [0, 1, 2]
    told(page, "confirm", "day-0")
    assert order("uncertain") == [1, 2, 0]
    told(page, "split", "day-1", images=[3])
    told(page, "different", "day-2", "night-0")
    assert order("size") == [0, 2, 1] and order("matched") == [1, 0, 2] and order("uncertain") == [1, 0, 2]
    assert page.get("/clusters?order=no").status_code == 400


def test_a_selection_is_split_off(page: TestClient) -> None:
    answer = told(page, "split", "day-0", images=[1, 2])
    assert (answer.status_code, answer.headers["location"]) == (303, "/clusters/day/3")
    expected = {**BEFORE, "day 0": [0], "day 3": [1, 2]}
    assert clusters(page) == expected and "confirmed" in page.get("/clusters/day/3").text
    assert partner(page, "day 0") == "night 2" and partner(page, "day 3") is None


def test_an_image_is_removed(page: TestClient) -> None:
    assert told(page, "remove", "night-1", images=[12]).headers["location"] == "/clusters/night/1"
    assert clusters(page) == {**BEFORE, "night 1": [13, 14], "night -1": [12]}
    assert "1 night image is in no cluster" in page.get("/clusters?domain=night").text


def test_two_clusters_are_merged_and_keep_a_match(page: TestClient) -> None:
    told(page, "different", "day-0", "night-2")
    assert partner(page, "day 0") is None and partner(page, "night 2") is None
    assert told(page, "same", "day-0", "day-2").headers["location"] == "/clusters/day/0"
    expected = {name: images for name, images in BEFORE.items() if name != "day 2"}
    assert clusters(page) == {**expected, "day 0": [0, 1, 2, 6, 7, 8]}
    assert partner(page, "day 0") == "night 0" and partner(page, "night 0") == "day 0"


def test_clusters_of_day_and_night_are_the_same_vehicle(page: TestClient) -> None:
    told(page, "same", "day-0", "night-1")
    assert clusters(page) == BEFORE
    found = {name: partner(page, name) for name in BEFORE}
    assert (found["day 0"], found["night 1"], found["day 1"], found["night 2"]) == (
        "night 1",
        "day 0",
        None,
        None,
    )
    assert "matched by you" in page.get("/clusters/day/0").text


def test_the_choice_of_another_cluster_leads_to_the_pair(page: TestClient) -> None:
    text = page.get("/clusters?domain=day&beside=day-1").text
    assert "/clusters/day/1?other_domain=day&amp;other=2" in text and 'other=1"' not in text
    pair = page.get("/clusters/day/1?other_domain=day&other=2").text
    assert "The same vehicle: merge" in pair and 'name="other" value="2"' in pair
    assert page.get("/clusters?beside=day-77").status_code == 404
    assert page.get("/clusters?beside=dusk-7").status_code == 400


def test_undo_takes_back_one_after_the_other(page: TestClient) -> None:
    steps = [clusters(page)]
    for verb, cluster, other, images in (
        ("split", "day-0", "", [1, 2]),
        ("same", "day-0", "day-1", None),
        ("remove", "night-0", "", [15]),
        ("confirm", "night-0", "", None),
    ):
        assert told(page, verb, cluster, other, **({"images": images} if images else {})).status_code == 303
        steps.append(clusters(page))
    for before in reversed(steps[:-1]):
        assert "Last correction" in page.get("/clusters").text
        assert told(page, "undo").status_code == 303
        assert clusters(page) == before
    assert "Last correction" not in page.get("/clusters").text
    assert told(page, "undo").status_code == 400


def test_corrections_are_there_after_a_kill(run: Path, page: TestClient) -> None:
    told(page, "split", "day-0", images=[1, 2])
    told(page, "remove", "day-1", images=[4])
    after = clusters(page)
    log = run / "corrections.jsonl"
    whole = log.read_bytes()
    assert [json.loads(line)["do"] for line in whole.splitlines()] == ["split", "remove"]
    assert clusters(client(run)) == after
    log.write_bytes(whole + b'{"do": "remove", "images": ["/x')  # a kill in the middle of a line
    again = client(run)
    assert clusters(again) == after
    told(again, "undo")
    assert log.read_bytes().startswith(whole) and len(log.read_bytes().splitlines()) == 3
    assert clusters(client(run)) == clusters(again) == {**BEFORE, "day 0": [0], "day 3": [1, 2]}
    log.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(ValueError, match=r"Line 1 of .*corrections\.jsonl is damaged"):
        Site.open(run)


def test_a_full_disk_changes_nothing(run: Path, page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    told(page, "confirm", "day-0")
    before = (run / "corrections.jsonl").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        answer = told(page, "remove", "day-1", images=[4])
    assert answer.status_code == 500
    assert "It could not be saved (No space left on device), so nothing was changed." in answer.text
    assert (run / "corrections.jsonl").read_bytes() == before and clusters(page) == BEFORE
    assert told(page, "remove", "day-1", images=[4]).status_code == 303
    assert clusters(page)["day -1"] == [4]


def test_two_windows_do_not_overwrite_each_other(run: Path, page: TestClient) -> None:
    data = {"revision": 0, "domain": "day", "number": 0}
    other = client(run)  # another process with the same run
    assert page.post("/correct/split", data={**data, "images": [0]}, headers=SENT).status_code == 303
    for window in (page, other):
        answer = window.post("/correct/confirm", data=data, headers=SENT)
        assert answer.status_code == 409 and "look at it again" in answer.text
    assert len((run / "corrections.jsonl").read_text().splitlines()) == 1
    assert clusters(other) == clusters(page)


@pytest.mark.parametrize(
    ("verb", "cluster", "other", "images", "status"),
    [
        ("split", "day-0", "", None, 400),
        ("split", "day-0", "", [0, 1, 2], 400),
        ("split", "day-0", "", [0, 5], 400),
        ("remove", "day-0", "", [99], 400),
        ("remove", "day-0", "", [-1], 400),
        ("confirm", "day-9", "", None, 404),
        ("confirm", "day--1", "", None, 404),
        ("same", "day-0", "day-0", None, 400),
        ("same", "day-0", "day-9", None, 404),
        ("same", "day-0", "", None, 404),
        ("explode", "day-0", "", None, 400),
    ],
)
def test_nonsense_is_refused(
    run: Path, page: TestClient, verb: str, cluster: str, other: str, images: list[int] | None, status: int
) -> None:
    answer = told(page, verb, cluster, other, **({"images": images} if images else {}))
    assert answer.status_code == status and 'class="card sentence"' in answer.text
    assert not (run / "corrections.jsonl").exists() and clusters(page) == BEFORE


def test_looking_changes_nothing(run: Path, page: TestClient) -> None:
    for verb in ("undo", "confirm", "remove"):
        assert page.get(f"/correct/{verb}?revision=0&domain=day&number=0").status_code == 405
    for path in ("/clusters", "/clusters/day/0", "/labels.csv"):
        page.get(path)
    assert not (run / "corrections.jsonl").exists()


def test_the_exported_labels_are_what_training_reads(run: Path, page: TestClient, tmp_path: Path) -> None:
    told(page, "same", "day-0", "night-1")
    told(page, "split", "day-1", images=[3, 4])
    told(page, "remove", "day-2", images=[8])
    answer = page.get("/labels.csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="labels.csv"'
    file = tmp_path / "labels.csv"
    file.write_bytes(answer.content)
    text = answer.content.decode("utf-8", "surrogateescape")
    table = list(csv.DictReader(io.StringIO(text, newline="")))
    first = ClusterTable.read(run / "clusters.csv")
    assert [row["path"] for row in table] == first.paths
    assert [int(row["cluster"]) for row in table[:N]] == [0, 0, 0, 3, 3, 1, 2, 2, -1]
    assert {row["matched_cluster"] for row in table[:3]} == {"1"} and table[0]["score"] == ""
    # The file as clusters of another page, and what the refiner makes of the first clusters with it.
    rows = read_corrections(file)
    said, missing = said_of(rows, first.paths)
    assert missing == 0 and said.left_out.nonzero().flatten().tolist() == [8]
    view = first.view(rows)
    now = Clusters(run).now()[2]
    assert view.clusters == now.clusters
    shutil.move(file, run / "clusters.csv")
    again = ClusterTable.read(run / "clusters.csv").view([])
    assert {key: one.images for key, one in again.clusters.items()} == {
        key: one.images for key, one in now.clusters.items()
    }
    assert again.get(Domain.DAY, 0).partner == 1


def test_matches_follow_the_images_and_nothing_else(tmp_path: Path) -> None:
    """Day 0 has no match, night 1 loses its images to night 0, and outliers become a cluster."""
    rows = ["a,day,0,,", "b,day,1,1,0.5", "c,day,2,0,0.75", "d,night,0,2,0.75", "e,night,1,1,0.5"]
    rows += ["f,night,-1,,", "g,night,-1,,", "h,day,3,1,0.25"]
    (tmp_path / "clusters.csv").write_text(
        "path,domain,cluster,matched_cluster,score\n" + "\n".join(rows) + "\n"
    )
    table = ClusterTable.read(tmp_path / "clusters.csv")

    def partners(*said: CorrectionRow) -> dict[str, tuple[int | None, float | None]]:
        return {
            one.name: (one.partner, one.score)
            for one in table.view(said).clusters.values()
            if one.number >= 0
        }

    plain = partners()
    assert plain == {
        "day 0": (None, None),
        "day 1": (1, 0.5),
        "day 2": (0, 0.75),
        "day 3": (1, 0.25),
        "night 0": (2, 0.75),
        "night 1": (1, 0.5),
    }
    outliers = [CorrectionRow(path, 0, ()) for path in "fg"]
    assert partners(*outliers) == {**plain, "night 2": (None, None)}
    merged = partners(*(CorrectionRow(path, 0, ()) for path in "de"))
    assert merged == {
        "day 0": (None, None),
        "day 1": (0, 0.5),
        "day 2": (0, 0.75),
        "day 3": (0, 0.25),
        "night 0": (2, 0.75),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,domain\n/x,day\n", "is damaged at image 1"),
        ("path,domain,cluster,matched_cluster,score\n/x,dusk,0,,\n", "is damaged at image 1"),
        ("path,domain,cluster,matched_cluster,score\n/x,day,0,,\n/x,day,a,,\n", "is damaged at image 2"),
    ],
)
def test_a_damaged_list_is_refused_in_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "clusters.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        Site.open(tmp_path)


def test_what_is_no_gallery_and_no_run_is_refused(tmp_path: Path, copied: Path) -> None:
    with pytest.raises(ValueError, match="is neither a gallery nor a run"):
        Site.open(tmp_path / "none")
    (copied / "run" / "clusters.csv").unlink()
    with pytest.raises(ValueError, match=r"has no clusters\.csv yet"):
        Site.open(copied / "run")
    page = client(copied / "gallery")
    assert page.get("/").status_code == 200 and page.get("/clusters").status_code == 404
    shutil.rmtree(copied / "run")
    with pytest.raises(ValueError):
        Site.open(copied / "gallery")


def test_a_list_without_any_image(tmp_path: Path) -> None:
    (tmp_path / "clusters.csv").write_text("path,domain,cluster,matched_cluster,score\n")
    page = client(tmp_path)
    assert "There is no cluster of this domain" in page.get("/clusters").text
    assert page.get("/labels.csv").text.count("\n") == 1
