"""What projects/*/experiments add by ``PLUGINS``: each config passes the pre-flight, trains, and does what it says."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from head_world import build, turned_world

from dnreid_plugins.engine import preflight
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.types import Assignment, Domain
from dnreid_plugins.runtime.config_files import merge_with_suggestions
from dnreid_plugins.runtime.plugins import import_plugins

PROJECTS = Path(__file__).resolve().parents[2] / "projects"
CONFIGS = sorted(PROJECTS.glob("*/experiments/*.yml"))
SIMILARITY = torch.tensor([[0.9, 0.8, 0.1], [0.7, 0.2, 0.3]])
RIGHT = torch.tensor([[0, 1, 0], [0, 0, 1]]).bool()
DICTIONARY = torch.tensor([[1, 0, 0], [0, 0, 1]]).bool()

pytestmark = pytest.mark.usefixtures("scratch")


def plugin(project: str, name: str) -> Any:
    import_plugins((name,), PROJECTS / project / "experiments")
    return importlib.import_module(name)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_config_passes_the_preflight(
    path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    cfg = get_cfg()
    merge_with_suggestions(cfg, str(path), ["MODEL.DEVICE", "cpu"])
    preflight.check(cfg)


# ------------------------------------------------------------------ what CPML attracts


@pytest.mark.parametrize(
    ("choice", "positives", "hard_day", "hard_night"),
    [
        # the two nearest: day 0 has nights 0 and 1, day 1 nights 0 and 2; every night has both days
        ("mutual", [[1, 1, 0], [1, 0, 1]], [[0, 0, 0], [0, 0, 0]], [[0, 0, 1], [0, 1, 0]]),
        ("nearest", [[1, 0, 0], [0, 0, 0]], [[0, 1, 0], [1, 0, 1]], [[0, 1, 1], [1, 1, 1]]),
        ("dictionary", [[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [1, 0, 0]], [[0, 1, 1], [1, 1, 0]]),
        ("right_mutual", [[0, 1, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]], [[0, 0, 1], [0, 1, 0]]),
        ("right", [[0, 1, 0], [0, 0, 1]], [[1, 0, 0], [1, 0, 0]], [[1, 0, 1], [1, 1, 0]]),
    ],
)
def test_the_positives_of_each_choice(choice: str, positives: Any, hard_day: Any, hard_night: Any) -> None:
    positives_of = plugin("BridgingDayNight", "cpml_positives").positives_of
    found = positives_of(choice, SIMILARITY, RIGHT, DICTIONARY, 2)
    assert [mask.int().tolist() for mask in found] == [positives, hard_day, hard_night]


@pytest.fixture
def cpml_positives() -> Any:
    return plugin("BridgingDayNight", "cpml_positives")


@pytest.mark.parametrize("choice", ["mutual", "nearest", "dictionary", "right_mutual", "right"])
def test_a_run_trains_on_the_chosen_positives(
    choice: str, cpml_positives: Any, tiny_bridging_cfg: CfgNode
) -> None:
    cfg = tiny_bridging_cfg
    opts: list[Any] = ["LABELS.REFINERS", ("WithIdentities",)]
    opts += ["MODEL.LOSSES.NAME", ("ClusterNCE", "PrototypeClassifier", "CPMLOf")]
    cfg.merge_from_list([*opts, "MODEL.LOSSES.CPMLOF.CHOICE", choice, "MODEL.LOSSES.CPMLOF.TOP_K", 2])
    CrossDomainTrainer(cfg).train()
    figures = health(cfg)
    assert all(one["CPMLOf/positives"] > 0 for one in figures)
    if choice.startswith("right"):
        assert {one["true/CPMLOf/matching_precision"] for one in figures} == {100.0}


# ------------------------------------------------------------------ a differentiable Eq. 5


def test_live_scores_are_those_of_image_and_row() -> None:
    plugin("CIA", "live_dgm")
    world, head = turned_world(), build("LiveDGM")
    parts = world.parts(head)
    expected, partners = torch.zeros(()), parts.matching("LiveDGM")
    for domain in Domain:
        batch, partner = world.batch.of(domain), partners.partner(domain)[0]
        rows, terms = parts.memory.cluster_rows(domain.other), []
        for image, target in zip(batch.unit, batch.targets.tolist()):
            if target >= 0 and (other := int(partner[target])) >= 0:
                cosine = image @ rows[other]
                score = 1 + 0.2 * (cosine - 0.5) if cosine >= 0.5 else 0.2 * cosine
                terms.append(-score * torch.log_softmax(rows @ image / 0.05, dim=0)[other])
        expected = expected + torch.stack(terms).mean()
    loss = head(world.batch, parts)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5) and loss.item() > 0
    mine, wanted = (torch.autograd.grad(one, world.batch.features)[0] for one in (loss, expected))
    torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-6)


def test_images_without_a_partner_cost_nothing() -> None:
    plugin("CIA", "live_dgm")
    world, head = turned_world(), build("LiveDGM")
    parts = world.parts(head)
    parts.epoch = replace(parts.epoch, matchings={"LiveDGM": Assignment.empty(3, 4)})
    loss = head(world.batch, parts)
    loss.backward()
    assert loss.item() == 0 and not world.batch.features.grad.any()


def health(cfg: CfgNode) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "health.jsonl").read_text().splitlines()]
