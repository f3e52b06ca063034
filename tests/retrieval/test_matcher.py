"""The features of a user are those of the evaluation, from a run's folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from PIL import Image
from retrieval_world import pick, trained_run

import dnreid_plugins
from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.loaders import build_inference_loader
from dnreid_plugins.data.train_data import read_dataset
from dnreid_plugins.evaluation.evaluator import evaluate
from dnreid_plugins.evaluation.extraction import extract_features
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.retrieval.index import Index
from dnreid_plugins.retrieval.matcher import Matcher

EXACT = {"rtol": 0, "atol": 2e-6}


@pytest.fixture(params=["plain", "flip"])
def run(request: Any, tiny_cfg: CfgNode) -> Path:
    tiny_cfg.TEST.FLIP.ENABLED = request.param == "flip"
    return trained_run(tiny_cfg)


def test_features_are_those_of_the_evaluation_and_so_is_rank_1(run: Path, tiny_cfg: CfgNode) -> None:
    matcher = Matcher.load(run)
    data = read_dataset("DN348")
    loader = build_inference_loader(tiny_cfg, data.test)
    expected = F.normalize(
        extract_features(matcher.model, loader, flip=tiny_cfg.TEST.FLIP.ENABLED, normalize=False)
    )
    parts = {domain: [item for item in data.test if item.domain == domain] for domain in Domain}
    found = {d: matcher.embed([item.path for item in parts[d]], d, batch=5) for d in Domain}
    for domain in Domain:
        rows = [number for number, item in enumerate(data.test) if item.domain == domain]
        torch.testing.assert_close(found[domain], expected[rows], **EXACT)
    results = evaluate(matcher.model, data, matcher.cfg)
    for query, gallery, name in ((Domain.DAY, Domain.NIGHT, "D2N"), (Domain.NIGHT, Domain.DAY, "N2D")):
        items = parts[gallery]
        index = Index.build(matcher, [i.path for i in items], gallery, ids=[str(i.pid) for i in items])
        answers = matcher.search([item.path for item in parts[query]], query, index, k=1)
        right = [one.matches[0].id == str(item.pid) for one, item in zip(answers, parts[query], strict=True)]
        assert 100 * np.mean(right) == pytest.approx(results[name]["Rank-1"])


def test_the_domain_chooses_the_stream(run: Path) -> None:
    matcher, paths = Matcher.load(run), pick("day", 2)
    day, night = matcher.embed(paths, "day"), matcher.embed(paths, 1)
    assert float((day - night).abs().max()) > 1e-3
    torch.testing.assert_close(
        matcher.embed(paths, ["day", "night"]), torch.stack([day[0], night[1]]), **EXACT
    )
    with pytest.raises(ValueError, match="The domain is 'dusk'"):
        matcher.embed(paths, "dusk")


def test_pictures_in_memory_give_the_features_of_their_files(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    matcher = Matcher.load(trained_run(tiny_cfg))
    odd = tmp_path / 'a "b"\n<script>é.png'
    Image.open(pick("night", 1)[0]).convert("CMYK").save(odd, format="TIFF")
    sideways = Image.new("RGB", (30, 12), "red")
    exif = sideways.getexif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "exif.jpg", exif=exif)
    paths = [*pick("night", 2), odd, tmp_path / "exif.jpg"]
    pictures = [Image.open(path) for path in paths]
    torch.testing.assert_close(matcher.embed(pictures, "night"), matcher.embed(paths, "night"), **EXACT)
    assert pictures[-1].size == (30, 12), "the user's picture is not turned"
    assert matcher.embed([], "day").shape == (0, matcher.dim)
    with pytest.raises(DataError, match="missing"):
        matcher.embed([tmp_path / "missing.png"], "day")


def test_the_fingerprint_is_that_of_what_makes_features(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    run = trained_run(tiny_cfg)
    matcher = Matcher.load(run)
    assert matcher.fingerprint == Matcher.load(run).fingerprint
    content = torch.load(run / "model_final.pth", weights_only=True)
    bare = {k: v for k, v in content["model"].items() if k.startswith(("backbone.", "heads."))}
    torch.save(bare, run / "bare.pth")
    assert Matcher.load(run, weights="bare.pth").fingerprint == matcher.fingerprint
    bare["backbone.backbone.conv2.weight"][0, 0, 0, 0] += 1e-3
    torch.save(bare, run / "other.pth")
    assert Matcher.load(run, weights=run / "other.pth").fingerprint != matcher.fingerprint
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("FLIP:\n    ENABLED: false", "FLIP:\n    ENABLED: true"))
    assert Matcher.load(run, weights="bare.pth").fingerprint != matcher.fingerprint


def test_what_is_no_run_is_refused_in_a_sentence(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.yaml, so it is no run"):
        Matcher.load(tmp_path)
    run = trained_run(tiny_cfg)
    with pytest.raises(
        ValueError, match=r"There are no weights .*nothing.pth; name another, e.g. model_final"
    ):
        Matcher.load(run, weights="nothing.pth")
    with pytest.raises(ValueError, match="say with weights"):
        Matcher.load("CIA/dnmini")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="finds no GPU here"):
            Matcher.load(run, device="cuda")


def test_the_package_offers_it() -> None:
    assert dnreid_plugins.Matcher is Matcher


@pytest.mark.parametrize("kind", ["tiny_bridging_cfg", "supervised_cfg"])
def test_every_architecture_is_a_matcher(kind: str, request: pytest.FixtureRequest) -> None:
    run = trained_run(request.getfixturevalue(kind))
    matcher = Matcher.load(run, device="cpu")
    index = Index.build(matcher, pick("night", 3), "night")
    assert [one.matches[0].row for one in matcher.search(pick("night", 3), "night", index, 1)] == [0, 1, 2]
    assert index.features.shape == (3, matcher.dim)
    torch.testing.assert_close(torch.tensor(index.features).norm(dim=1), torch.ones(3))
