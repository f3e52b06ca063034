"""The probes behind the discussions: what they print is what they say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import probe

from dnreid_plugins.functional.types import Epoch
from dnreid_plugins.labels.base import make_clusters


def test_changes_are_those_of_a_small_step_on_the_sphere() -> None:
    torch.manual_seed(0)
    unit = F.normalize(torch.randn(12, 7, dtype=torch.float64), dim=1)
    gradient = torch.randn(12, 7, dtype=torch.float64)
    masks = {"some": torch.rand(12, 12) > 0.6, "pair": torch.zeros(12, 12, dtype=torch.bool)}
    masks["pair"][3, 8] = True
    found = probe.changes(unit, gradient, masks)
    along = -(gradient - (gradient * unit).sum(1, keepdim=True) * unit)
    length = 1e-6
    moved = F.normalize(unit + length * along / along.norm(), dim=1)
    for name, mask in masks.items():
        twin = ((moved @ moved.T)[mask].mean() - (unit @ unit.T)[mask].mean()) / length
        torch.testing.assert_close(torch.tensor(found[name]), twin.float(), rtol=1e-4, atol=1e-6)


def test_a_batch_has_eight_clusters_with_four_images_each() -> None:
    labels = torch.arange(120) // 6
    labels[:30] = -1
    labels[30:33] = 99  # three images are too few
    drawn = probe.draw(labels, np.random.default_rng(0))
    names, sizes = torch.unique(labels[drawn], return_counts=True)
    assert sizes.tolist() == [4] * 8 and not {-1, 99} & set(names.tolist()) and len(set(drawn.tolist())) == 32


def epoch_of(day: list[list[float]], night: list[list[float]]) -> Epoch:
    parts, start = [], 0
    for rows in (day, night):
        features = F.normalize(torch.tensor(rows), dim=1)
        places = torch.arange(start, start + len(rows))
        parts.append(make_clusters(torch.arange(len(rows)), features, places))
        start += len(rows)
    return Epoch.of(parts[0], parts[1], 1, 1)


def test_shares_of_right_pairs() -> None:
    """Three day clusters, two night ones, each one image; the third day cluster is nearest to a wrong one."""
    epoch = epoch_of([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]], [[1.0, 0.1], [0.1, 1.0]])
    found = probe.prototypes(SimpleNamespace(epoch=epoch, ids=np.array([0, 1, 1, 0, 1])), top_k=1)
    assert found["all pairs: right, %"] == [pytest.approx(50)]
    assert found["nearest of a day cluster: right, %"] == [pytest.approx(200 / 3)]
    assert found["mutual, k = 1 (attracted): right, %"] == found["mutual, k = 1: right, %"] == [100.0]
    assert found["mutual, k = 1: per cluster"] == [pytest.approx(2 * 2 / 5)]
    assert found["one-sided, k = 1 (repelled): right, %"] == [0.0]


def test_kinds_of_pairs() -> None:
    kinds = probe._masks(torch.tensor([0, 0, 1, 0, 0, 1]), torch.tensor([7, 7, 8, 8, 8, 9]))
    counts = {name: int(mask.sum()) for name, mask in kinds.items()}
    assert counts == dict(zip(probe.PAIRS, (4, 8, 4, 14), strict=True))


def test_gradients_of_a_batch_are_compared() -> None:
    torch.manual_seed(0)
    labels = torch.arange(64) // 6
    parts = [
        make_clusters(labels, F.normalize(torch.randn(64, 8), dim=1), torch.arange(64) + 64 * place)
        for place in range(2)
    ]
    probed = SimpleNamespace(
        epoch=Epoch.of(parts[0], parts[1], 1, 1), ids=torch.cat([labels, labels]).numpy()
    )
    found = probe.alignment(probed, batches=3)
    assert all(len(values) == 3 for values in found.values())
    assert len(found) == 1 + 2 * len(probe.PAIRS) and 0 < found["cosine of the two gradients"][0] <= 1


def test_figures_of_a_run_stand_by_iteration_under_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"iteration": 3, "a": 1.5},
        {"iteration": 3, "b": 2},
        {"iteration": 4, "c": 7},
        {"iteration": 5, "b": 4},
    ]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "config.yaml").write_text("DATASETS: {TESTS: [DNMini], DNMINI_SEED: 2}\n")
    (tmp_path / "results.json").write_text(
        json.dumps({"seed": 1, "config_hash": "f00", "code_version": "some code"})
    )
    probe.main(["figures", str(tmp_path), "--names", "b", "a"])
    head, _, *rows, _, caption = capsys.readouterr().out.strip().splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (head, *rows)]
    assert cells == [["iteration", "b", "a"], ["3", "2", "1.5"], ["5", "4", ""]]
    assert caption == "*metrics.json; DNMini, rendering 2, run seed 1; config f00; some code.*"
    with pytest.raises(SystemExit, match="has no 'd'; it has"):
        probe.main(["figures", str(tmp_path), "--names", "a", "d"])
