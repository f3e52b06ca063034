"""What other programs get is what the run computes; a file that differs is never handed over."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet
import pytest
import torch
from fastreid.config import CfgNode
from retrieval_world import pick, trained_run

from dnreid_plugins.commands.app import main
from dnreid_plugins.data.images import read_image
from dnreid_plugins.data.transforms import build_domain_transform
from dnreid_plugins.retrieval import export as module
from dnreid_plugins.retrieval.matcher import Matcher

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def pixels(matcher: Matcher, paths: list[str]) -> torch.Tensor:
    transform = build_domain_transform(matcher.cfg, is_train=False)
    return torch.stack([transform.day(read_image(path)) for path in paths]).float()


@pytest.mark.parametrize("flip", [False, True])
def test_onnx_gives_the_features_of_each_domain(
    tiny_cfg: CfgNode, tmp_path: Path, flip: bool, capsys: Any
) -> None:
    tiny_cfg.TEST.FLIP.ENABLED = flip
    run, out = trained_run(tiny_cfg), tmp_path / "onnx"
    main(["export", str(run), "--to", "onnx", "--out", str(out)])
    assert "On 48 images the features differ by at most" in capsys.readouterr().out
    about = json.loads((out / "export.json").read_text())
    assert about["compared"]["results"]["DN348"]["D2N"]["mAP"] > 0
    assert about["compared"]["largest_feature_difference"] <= 1e-4
    matcher = Matcher.load(run)
    assert about["fingerprint"] == matcher.fingerprint
    for domain in ("day", "night"):
        paths = pick(domain, 3)
        for count in (1, 3):
            session = onnxruntime.InferenceSession(str(out / about["files"][domain]))
            found = session.run(None, {"images": pixels(matcher, paths[:count]).numpy()})[0]
            np.testing.assert_allclose(found, matcher.embed(paths[:count], domain).numpy(), atol=1e-5)


def test_torch_export_of_one_stream_and_of_fastreids_own_model(
    supervised_cfg: CfgNode, tmp_path: Path
) -> None:
    run, out = trained_run(supervised_cfg), tmp_path / "torch"
    main(["export", str(run), "--to", "torch", "--out", str(out)])
    about = json.loads((out / "export.json").read_text())
    assert about["files"] == {"day": "encoder.pt2", "night": "encoder.pt2"}
    matcher, paths = Matcher.load(run), pick("night", 3)
    encoder = torch.export.load(out / "encoder.pt2").module()
    for count in (1, 3):
        torch.testing.assert_close(
            encoder(pixels(matcher, paths[:count])), matcher.embed(paths[:count], "night"), rtol=0, atol=1e-5
        )


def test_an_export_that_differs_is_refused_and_leaves_nothing(
    tiny_cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = trained_run(tiny_cfg), tmp_path / "torch"
    monkeypatch.setattr(module.UnitFeatures, "forward", lambda self, images: self.encoder(images))
    with pytest.raises(SystemExit, match=r"error: The exported features differ by up to .* \(limit 0.0001\)"):
        main(["export", str(run), "--to", "torch", "--out", str(out)])
    assert not [path for path in tmp_path.iterdir() if "torch" in path.name]
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(SystemExit, match="exists; name a new or an empty folder"):
        main(["export", str(run), "--to", "torch", "--out", str(out)])


def test_features_in_every_format_are_those_of_the_run(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    run = trained_run(tiny_cfg)
    for name in ("f.parquet", "f.npy", "g.csv"):
        main(["export", str(run), "--to", "features", "--out", str(tmp_path / name)])
    table = pyarrow.parquet.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["path", "domain", "id", "camera", "feature"] and len(table) == 48
    rows = list(csv.DictReader((tmp_path / "g.csv").open(newline="")))
    labels = list(csv.DictReader((tmp_path / "f.csv").open(newline="")))
    features = np.load(tmp_path / "f.npy")
    assert [row["path"] for row in rows] == [row["path"] for row in labels] == table["path"].to_pylist()
    np.testing.assert_array_equal(np.array(table["feature"].to_pylist(), np.float32), features)
    np.testing.assert_array_equal([[float(row[f"f{d}"]) for d in range(16)] for row in rows], features)
    expected = Matcher.load(run).embed([r["path"] for r in rows], [r["domain"] for r in rows])
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)
    assert all(row["path"].split("/")[-2] == f"{int(row['id']):05d}" for row in rows)
    with pytest.raises(SystemExit, match=r"name a file \.parquet, \.npy, \.csv"):
        main(["export", str(run), "--to", "features", "--out", str(tmp_path / "f.xls")])


def test_a_run_on_own_images_without_identities(tiny_cfg: CfgNode, tmp_path: Path, capsys: Any) -> None:
    for domain, count in (("day", 3), ("night", 2)):
        (tmp_path / domain).mkdir()
        for path in pick(domain, count):
            shutil.copy(path, tmp_path / domain)
    tiny_cfg.DATASETS.NAMES = tiny_cfg.DATASETS.TESTS = ("DayNightFolder",)
    tiny_cfg.DATASETS.DAY_DIR, tiny_cfg.DATASETS.NIGHT_DIR = str(tmp_path / "day"), str(tmp_path / "night")
    run = str(trained_run(tiny_cfg))
    main(["export", run, "--to", "torch", "--out", str(tmp_path / "torch")])
    assert re.search("On 5 images the features differ by .*; nothing was scored", capsys.readouterr().out)
    main(["export", run, "--to", "features", "--out", str(tmp_path / "f.csv")])
    rows = list(csv.DictReader((tmp_path / "f.csv").open(newline="")))
    assert [(row["domain"], row["id"]) for row in rows] == [("day", "")] * 3 + [("night", "")] * 2
