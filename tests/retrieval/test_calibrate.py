"""Thresholds from labelled images against counting all pairs, through the command that a user types."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastreid.config import CfgNode
from retrieval_world import pick, trained_run

from dnreid_plugins.commands.app import main
from dnreid_plugins.functional.ranking.roc import true_positive_rates
from dnreid_plugins.functional.ranking.verification import clopper_pearson
from dnreid_plugins.retrieval import pair_scores
from dnreid_plugins.retrieval.calibrate import calibrate
from dnreid_plugins.retrieval.matcher import Matcher
from dnreid_plugins.retrieval.pair_scores import all_pairs
from dnreid_plugins.retrieval.threshold import Threshold


def labelled(count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ids, domains = rng.integers(0, 6, count), rng.integers(0, 2, count)
    rows = rng.normal(size=(6, 8))[ids] + 0.7 * rng.normal(size=(count, 8))
    names = np.array([f"v{one}" if one else "" for one in ids])  # one identity is unknown
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), names, domains


def counted(
    rows: np.ndarray, ids: np.ndarray, domains: np.ndarray, kind: str
) -> tuple[list[float], list[float]]:
    same, different = [], []
    for i, j in itertools.combinations(range(len(rows)), 2):
        pair = "across" if domains[i] != domains[j] else ("day", "night")[domains[i]]
        if pair == kind and ids[i] and ids[j]:
            (same if ids[i] == ids[j] else different).append(float(np.float32(rows[i] @ rows[j])))
    return same, different


@pytest.mark.parametrize("kind", ["across", "day", "night"])
def test_thresholds_are_those_of_counting_every_pair(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_scores, "_BLOCK", 7)
    rows, ids, domains = labelled()
    same, different = counted(rows, ids, domains, kind)
    scores = all_pairs(rows, ids, domains, rate=0.1)
    found = calibrate(scores, fingerprint="f", rate=0.1).directions[kind]
    assert (found.pairs_positive, found.pairs_negative) == (len(same), len(different))
    accepted = sum(
        one > found.value + 1e-6 for one in different
    )  # the value is that of the first one too many
    assert (
        found.false_match_rate == pytest.approx(accepted / len(different)) and found.false_match_rate <= 0.1
    )
    assert found.true_match_rate == pytest.approx(np.mean([one >= found.value for one in same]))
    assert sum(found.histogram["negative"]) == len(different) and sum(found.histogram["positive"]) == len(
        same
    )
    low, high = clopper_pearson(accepted, len(different))
    assert found.interval[0] <= low <= found.false_match_rate <= high <= found.interval[1]
    assert found.interval[1] - found.interval[0] > 1.2 * (high - low), (
        "pairs of one identity are not independent"
    )
    assert found.identities == len({*ids} - {""})


def test_across_domains_it_is_the_metric_of_the_evaluation() -> None:
    rows, ids, domains = labelled(400)
    known = ids != ""
    day, night = rows[known & (domains == 0)], rows[known & (domains == 1)]
    codes = [np.unique(ids[known & (domains == d)], return_inverse=True)[1] for d in (0, 1)]
    expected = true_positive_rates([1 - day @ night.T], *codes, rates=(0.01,))["TPR@FPR=1e-02"]
    found = calibrate(all_pairs(rows, ids, domains, rate=0.01), fingerprint="f", rate=0.01)
    assert 100 * found.directions["across"].true_match_rate == pytest.approx(expected, abs=0.05)
    assert [point[0] for point in found.main.roc] == sorted(point[0] for point in found.main.roc)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_say_what_can_be_certified(count: int) -> None:
    rows, _, _ = labelled(4)
    ids, domains = np.array(["a", "b"])[:count], np.array([0, 1])[:count]
    with pytest.raises(ValueError, match=r"no pair of the same|can certify"):
        calibrate(all_pairs(rows[:count], ids, domains, rate=0.1), fingerprint="f", rate=0.1)
    rows, ids, domains = labelled(30)
    with pytest.raises(
        ValueError, match=r"\d+ pairs of different .* across domains can certify a .* rate of 0\.\d+"
    ):
        calibrate(all_pairs(rows, ids, domains, rate=0.1), fingerprint="f", rate=1e-4)
    with pytest.raises(ValueError, match="The false match rate is 1; give a number between 0 and 1"):
        calibrate({}, fingerprint="f", rate=1)


def test_of_many_images_evenly_chosen_ones_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_scores, "IMAGES", 10)
    rows, ids, domains = labelled(200)
    scores = all_pairs(rows, ids, domains, rate=0.1)
    assert scores["across"].total + len(scores["across"].positive) == 100


@pytest.fixture
def run(tiny_cfg: CfgNode) -> str:
    return str(trained_run(tiny_cfg))


def test_every_source_of_labels_gives_the_threshold_that_search_uses(
    run: str, tmp_path: Path, capsys: Any
) -> None:
    folders = [Path(pick(domain, 1)[0]).parents[1] for domain in ("day", "night")]
    matcher = Matcher.load(run)
    main(["index", run, str(folders[0]), "--domain", "day", "--out", str(tmp_path / "g"), "--folder-ids"])
    main(
        [
            "index",
            run,
            str(folders[1]),
            "--domain",
            "night",
            "--out",
            str(tmp_path / "g"),
            "--folder-ids",
            "--add",
        ]
    )
    rate = ["--false-match-rate", "0.02"]
    main(["calibrate", run, "--day", str(folders[0]), "--night", str(folders[1]), *rate])
    by_folders = Threshold.load(run)
    main(["calibrate", run, "--gallery", str(tmp_path / "g"), *rate])
    by_gallery = Threshold.load(run)
    assert by_folders is not None and by_gallery is not None
    assert by_gallery.value == pytest.approx(by_folders.value, abs=1e-5)
    assert by_gallery.pairs_negative == by_folders.pairs_negative == 3600 - 360
    assert Threshold.load(tmp_path / "g") == by_gallery and by_gallery.fingerprint == matcher.fingerprint
    picture = tmp_path / "curves.png"
    main(["calibrate", run, "--data", "DN348", "--picture", str(picture), *rate])
    by_data = Threshold.load(run)
    assert by_data is not None and by_data.pairs_positive == 4 * 36 and by_data.interval[1] > 0.02
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "across domains" in printed and f"a match counts from {by_data.value:.4f} on" in printed
    main(["search", str(tmp_path / "g"), *pick("day", 1), "--domain", "day"])
    assert f"A match counts from {by_data.value:.3f} on" in capsys.readouterr().out


def test_listed_pairs(run: str, tmp_path: Path) -> None:
    table, day, night = tmp_path / "pairs.csv", pick("day", 24), pick("night", 24)
    rows = [
        (a, "day", b, "night", int(Path(a).parent.name == Path(b).parent.name)) for a in day for b in night
    ]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path_a", "domain_a", "path_b", "domain_b", "same"), *rows])
    main(["calibrate", run, "--pairs", str(table), "--false-match-rate", "0.02"])
    listed = json.loads((Path(run) / "threshold.json").read_text())["directions"]
    main(["calibrate", run, "--data", "DN348", "--false-match-rate", "0.02"])
    every = json.loads((Path(run) / "threshold.json").read_text())["directions"]
    assert list(listed) == ["across"] and listed["across"]["identities"] == 0
    assert listed["across"]["value"] == pytest.approx(every["across"]["value"], abs=1e-5)
    accepted = round(listed["across"]["false_match_rate"] * 432)
    assert listed["across"]["interval"] == pytest.approx(clopper_pearson(accepted, 432))
    table.write_text("path_a,domain_a,path_b,domain_b,same\na.png,day,b.png,night,perhaps\n")
    with pytest.raises(SystemExit, match="line 2: same is 'perhaps'; write 1 or 0"):
        main(["calibrate", run, "--pairs", str(table)])


def test_a_failed_calibration_keeps_the_threshold_that_was_there(run: str) -> None:
    main(["calibrate", run, "--data", "DN348", "--false-match-rate", "0.02"])
    before = (Path(run) / "threshold.json").read_text()
    with pytest.raises(
        SystemExit, match=r"432 pairs .* rate of 0\.0085\b.*while 1e-05 is wanted; give more pairs"
    ):
        main(["calibrate", run, "--data", "DN348", "--false-match-rate", "1e-5"])
    assert (Path(run) / "threshold.json").read_text() == before
    with pytest.raises(SystemExit, match="error: Got none of --pairs, .* give one"):
        main(["calibrate", run])
    with pytest.raises(SystemExit, match="error: Got --pairs and --data of"):
        main(["calibrate", run, "--pairs", "a.csv", "--data", "DN348"])
    with pytest.raises(SystemExit, match=r"The picture is 'curves.jpg'; name a file \.png"):
        main(["calibrate", run, "--data", "DN348", "--picture", "curves.jpg"])
