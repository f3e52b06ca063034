"""What the papers printed, as it is kept: each number, and a config that merges for each row on each data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dnreid_plugins.engine import preflight
from dnreid_plugins.engine.identity import config_hash
from dnreid_plugins.engine.preflight.model import needs_clusters
from dnreid_plugins.modeling.loss_heads import build_loss_heads
from dnreid_plugins.report.reproduce.catalogue import DIRECTIONS, SETS, Item, items, named, read
from dnreid_plugins.report.reproduce.plan import Choice, merged_row, needs_weights, runs_of
from dnreid_plugins.report.runs import merged

ROOT = Path(__file__).resolve().parents[3]
ALL = items()
OF_RUNS = [item for item in ALL.values() if item.kind not in ("statistics", "cost")]


def choice(data: str, **more: Any) -> Choice:
    return Choice(SETS[data], SETS[SETS[data].other], **more)


def test_every_table_and_figure_is_there() -> None:
    numbers = {match for item in ALL for match in re.findall(r"^(cia|bdn)-(?:fig)?(\d)", item)}
    assert {n for paper, n in numbers if paper == "cia"} == set("12345")
    assert {n for paper, n in numbers if paper == "bdn"} == set("12345678")
    assert {f"bdn-fig{n}" for n in "45678"} | {"cia-fig4", "cia-fig3-lambda", "cia-fig3-beta"} <= set(ALL)
    assert {item.kind for item in ALL.values()} == {
        "table",
        "sweep",
        "zero-shot",
        "figure",
        "statistics",
        "cost",
    }


@pytest.mark.parametrize("data", SETS)
def test_every_row_merges_and_builds_its_parts(data: str) -> None:
    """Of every item, whatever set its paper has it for: any item can be asked for on any set."""
    checked = set()
    for item in OF_RUNS:
        keys = []
        for row in item.rows(SETS[data]):
            assert row.config or row.why, item.id
            if row.config:
                cfg = merged_row(row.config, row.overrides)
                keys.append(config_hash(cfg))
                assert SETS[data].rendered or list(cfg.DATASETS.TESTS) == [data]
                builds(cfg.clone(), whole=keys[-1] not in checked and item.kind != "sweep" and data in WHOLE)
                checked.add(keys[-1])
        assert len(set(keys)) == len(keys) >= 2, f"two rows of {item.id} are the same"
    assert len(checked) > 50


#: The set whose rows pass the whole check of a run's start; on the others the same overrides change larger networks.
WHOLE = ("DNMini",)


def builds(cfg: Any, *, whole: bool) -> None:
    cfg.defrost()
    if needs_clusters(cfg):
        epochs = range(1, cfg.SOLVER.MAX_EPOCH + 1)
        heads = build_loss_heads(cfg)
        idle = {name for name, head in heads.items() if not any(head.weight_at(n) > 0 for n in epochs)}
        assert not idle, "a head that never trains"
    if whole:
        cfg.MODEL.DEVICE = "cpu"
        if needs_weights(cfg):
            cfg.MODEL.BACKBONE.PRETRAIN_PATH = __file__
        if cfg.MODEL.BACKBONE.CLIP.PRETRAINED == "openai":
            cfg.MODEL.BACKBONE.CLIP.PRETRAINED = "miniclip"  # a tag is looked up in the local cache
        preflight.check(cfg)


def test_regdb_is_ten_trials() -> None:
    rows = runs_of(ALL["cia-5"], choice("RegDB"))
    for row in rows:
        if row.runs:
            assert [place for place, _ in row.runs] == list(range(1, 11))
            assert len({run.key for _, run in row.runs}) == 10


def test_start_weights_go_to_the_rows_that_begin_with_them() -> None:
    rows = {
        row.row.name: row.runs[0][1].opts
        for row in runs_of(ALL["bdn-2"], choice("DN348", weights="r.pth", clip="c.pt"))
        if row.runs
    }
    assert ("r.pth" in rows["PGM"], "c.pt" in rows["PGM"]) == (True, False)
    assert ("r.pth" in rows["Ours"], "c.pt" in rows["Ours"]) == (False, True)
    rendered = runs_of(ALL["bdn-3"], choice("DNMini", weights="r.pth", clip="c.pt"))
    assert not any({"r.pth", "c.pt"} & set(run.opts) for row in rendered for _, run in row.runs)


#: Rows that a config of its own on DNMini has, too.
SAME = {
    "cia-2": [
        "CIA/configs/dnmini/base",
        "CIA/configs/dnmini/dgm",
        "CIA/configs/dnmini/maa",
        "CIA/configs/dnmini/cia",
    ],
    "cia-4": [f"CIA/configs/dnmini/{name}" for name in ("cia_fixed", "cia_discrete", "cia")],
    "cia-3": [
        f"CIA/configs/dnmini/{name}"
        for name in ("base", "cma", "pgm", "dgm", "mmd", "margin_mmd", "adca_maa", "cia")
    ],
    "bdn-3": [f"BridgingDayNight/configs/dnmini/{name}" for name in ("iia", "ipl", "cpml", "full")],
    "bdn-4": [
        f"BridgingDayNight/configs/dnmini/{name}"
        for name in ("full", "no_stage_1", "no_bias_net", "instance_align")
    ],
}


@pytest.mark.parametrize("name", SAME)
def test_rows_are_those_of_the_shipped_configs(name: str) -> None:
    found = [row.runs[0][1].key for row in runs_of(ALL[name], choice("DNMini"))]
    seeds = ["DATASETS.DNMINI_SEED", "0", "SEED", "0"]
    assert found == [config_hash(merged(ROOT / "projects" / f"{path}.yml", seeds)) for path in SAME[name]]


def test_the_default_value_of_a_sweep_is_the_method_itself() -> None:
    method = {"cia": "CIA/configs/dn348", "bdn": "BridgingDayNight/configs/dn348"}
    for item in OF_RUNS:
        if item.kind == "sweep":
            keys = {config_hash(merged_row(row.config, row.overrides)) for row in item.rows(SETS["DN348"])}
            own = merged_row(f"projects/{method[item.id[:3]]}.yml", ())
            assert config_hash(own) in keys, item.id


def printed(item: Item, data: str, tested_on: str | None = None) -> dict[str, list[str]]:
    """Rank-1 / mAP of both directions by row, as projects/README.md prints them."""
    digits = 2 if item.scale == 1.0 else 1
    rows = item.rows(SETS[data], SETS[tested_on] if tested_on else None)
    return {
        row.name: [
            f"{row.published[d]['Rank-1']:.{digits}f}/{row.published[d]['mAP']:.{digits}f}"
            for d in DIRECTIONS
        ]
        for row in rows
        if row.published
    }


def blocks() -> dict[str, dict[str, list[str]]]:
    """The two tables of published figures in projects/README.md: ``{first heading: {row: cells}}``."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in (ROOT / "projects" / "README.md").read_text().splitlines():
        head, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if head.endswith("'s block"):
            found[head] = {}
        elif found and re.search(r"\d/\d", "".join(cells)) and len(cells) in (6, 8):
            found[list(found)[-1]][head.replace(" (not here yet)", "")] = cells
    return found


def test_published_figures_are_those_of_the_page_of_systems() -> None:
    """Both were typed apart from each other."""
    cia, bridging = blocks().values()
    other = {
        "MMD-ReID": "MMD ReID",
        "Bridging Day and Night": "Ours",
        "DCLNet, true identities": "DCL, true identities",
    }
    dn348, dnwild = (printed(ALL["cia-1"], data) for data in ("DN348", "DNWild"))
    persons = printed(ALL["cia-5"], "RegDB")
    for name, cells in cia.items():
        own = other.get(name, name)
        expected = (dn348.get(own), dnwild.get(own), persons.get("Base" if name == "ADCA" else own))
        assert [cell for pair in expected for cell in pair or ("", "")] == cells, name
    places = [("bdn-1", "DN348", None), ("bdn-1", "DNWild", None)]
    places += [("bdn-2", "DNWild", "DN348"), ("bdn-2", "DN348", "DNWild")]
    tables = [printed(ALL[name], *place) for name, *place in places]
    for name, cells in bridging.items():
        expected = [table.get(other.get(name, name)) for table in tables]
        assert [cell for pair in expected for cell in pair or ("", "")] == cells, name
    assert (
        len(dn348) == len(dnwild) == 10 and len(persons) == 9 and len(tables[0]) == 12 and len(tables[2]) == 7
    )


def test_the_method_has_the_same_figures_wherever_it_stands() -> None:
    for data in ("DN348", "DNWild", "RegDB"):
        for paper, name in (("cia", "CIA"), ("bdn", "BridgingDayNight")):
            whole = f"projects/{name}/configs/{SETS[data].config}.yml"
            found = {
                str(
                    {
                        direction: {metric: figures[metric] for metric in ("Rank-1", "mAP")}
                        for direction, figures in row.published.items()
                    }
                )
                for item in OF_RUNS
                if item.id.startswith(paper) and item.kind in ("table", "sweep")
                for row in item.rows(SETS[data])
                if row.published and row.config == whole and is_default(row)
            }
            assert len(found) <= 1, (data, name)


def is_default(row: Any) -> bool:
    return config_hash(merged_row(row.config, row.overrides)) == config_hash(merged_row(row.config, ()))


def test_names_are_found_in_any_case_and_mistakes_are_told() -> None:
    assert [item.id for item in named(["CIA-2", "bdn_1", "cia-2"])] == ["cia-2", "bdn-1"]
    with pytest.raises(ValueError, match="no table or figure 'cia-22'; did you mean"):
        named(["cia-22"])


def test_a_damaged_file_of_items_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reproduce.yml"
    head = "paper: P\nmetrics: [Rank-1, mAP]\nitems:\n  x: {title: T, of: [DN348], kind: "
    path.write_text(f"{head}tabel}}\n")
    with pytest.raises(ValueError, match="item x of kind 'tabel'"):
        read(path)
    path.write_text(f"{head}table, rows: [{{name: R, system: CIA, published: {{DN348: '1 2 | 3'}}}}]}}\n")
    with pytest.raises(ValueError, match=r"x has the published figures '1 2 \| 3'"):
        read(path)["x"].rows(SETS["DN348"])
