"""``dnreid train``: which config its words mean, what fits it to own images, and how a schedule is scaled."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastreid.config import get_cfg

from dnreid_plugins import cli
from dnreid_plugins.commands import app
from dnreid_plugins.commands.choice import OwnImages, chosen, scaled
from dnreid_plugins.engine.preflight import check
from dnreid_plugins.runtime.config_files import ConfigError, merge_with_suggestions, read_config_file
from dnreid_plugins.runtime.run_folder import last_checkpoint
from dnreid_plugins.runtime.shipped import config_path, systems

ROOT = Path(__file__).resolve().parents[2]
NONE = OwnImages()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnImages:
    monkeypatch.chdir(tmp_path)
    for word in ("day", "night"):
        (tmp_path / word).mkdir()
    return OwnImages("day", "night")


@pytest.mark.parametrize(
    ("named", "data", "file"),
    [
        ("cia", "dn348", "projects/CIA/configs/dn348.yml"),
        ("bridging-day-night", "DN-Wild", "projects/BridgingDayNight/configs/dnwild.yml"),
        ("GUR*", "dnmini", "projects/GUR/configs/dnmini.yml"),
        ("cia/DN348", "", "projects/CIA/configs/dn348.yml"),
        ("DNMini/base", "", "configs/DNMini/base.yml"),
        ("projects/CIA/configs/dn348.yml", "", "projects/CIA/configs/dn348.yml"),
    ],
)
def test_systems_and_data_sets_have_names_in_any_spelling(
    named: str, data: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert chosen(named, data, NONE, None) == (ROOT / file, [])


def test_a_file_comes_before_a_system_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cia").write_text("SEED: 3\n")
    Path("suggested.yml").write_text("SEED: 4\n")
    assert chosen("cia", "", NONE, None)[0] == Path("cia")
    assert chosen("suggested.yml", "", NONE, None)[0] == Path("suggested.yml")


@pytest.mark.parametrize(
    ("named", "data", "sentence"),
    [
        ("", "", "No system was named; begin with one, such as `dnreid train cia --day"),
        ("cai", "dn348", "There is no system 'cai'; did you mean PCA, CIA or CAJ?"),
        ("cia", "dn384", "CIA has no config for the data set 'dn384'; did you mean dn348?"),
        ("cia", "zzz", "'zzz'; there are dn348, "),
        ("cia", "", "not said what CIA is to be trained on; give --day and --night, --csv, or --data"),
        ("bridgingday", "", "no system or config 'bridgingday'; did you mean BridgingDayNight"),
        ("CIA/dnmimi", "", "no config file CIA/dnmimi; did you mean CIA/dnmini"),
        ("gone.yml", "", "no config file gone.yml"),
    ],
)
def test_a_wrong_name_is_one_sentence_with_the_nearest(named: str, data: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen(named, data, NONE, None)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_own_images_and_a_data_set_exclude_each_other(own: OwnImages) -> None:
    with pytest.raises(ConfigError, match="Both --data dn348 and images of your own"):
        chosen("cia", "dn348", own, None)


@pytest.mark.parametrize("system", sorted(systems()))
@pytest.mark.parametrize("epochs", [None, 2])
def test_every_system_can_begin_on_own_images(system: str, epochs: int | None, own: OwnImages) -> None:
    config, settings = chosen(system.lower(), "", own, epochs)
    cfg = get_cfg()
    merge_with_suggestions(cfg, str(config), settings)
    assert cfg.DATASETS.NAMES == cfg.DATASETS.TESTS == ("DayNightFolder",)
    assert (cfg.DATASETS.DAY_DIR, cfg.DATASETS.NIGHT_DIR) == ("day", "night")
    assert cfg.DATALOADER.ITERS_PER_EPOCH == 0 and cfg.OUTPUT_DIR == f"logs/{system}/own"
    assert epochs is None or epochs == cfg.SOLVER.MAX_EPOCH
    check(cfg)


def test_a_table_is_own_images_too_and_a_config_keeps_its_folder(own: OwnImages) -> None:
    Path("mine.csv").write_text("path,domain\n")
    config, settings = chosen("CIA/dn348", "", OwnImages(csv="mine.csv"), None)
    cfg = get_cfg()
    merge_with_suggestions(cfg, str(config), settings)
    assert (cfg.DATASETS.NAMES, cfg.DATASETS.CSV) == (("DayNightTable",), "mine.csv")
    assert cfg.OUTPUT_DIR == "logs/CIA/dn348" and cfg.DATALOADER.ITERS_PER_EPOCH == 0
    config, settings = chosen("CIA/folder", "", own, None)
    assert "DATALOADER.ITERS_PER_EPOCH" not in settings


def test_a_scaled_schedule_keeps_its_proportions() -> None:
    content = read_config_file(config_path("CIA/dn348"))
    pairs = scaled(content, 10)
    found = dict(zip(pairs[::2], pairs[1::2], strict=True))
    assert found["SOLVER.MAX_EPOCH"] == "10" and found["SOLVER.STAGES"] == "(6,)"
    assert found["SOLVER.STEPS"] == "(2, 4)"
    assert found["MODEL.LOSSES.MAA.WEIGHT"] == "((1, 0.5), (6, 0.3))"
    assert found["MODEL.LOSSES.DGM.WEIGHT"] == "((6, 0.3),)"
    pairs = scaled(content, 1)
    assert "((1, 0.3),)" in pairs, "what is later holds"
    pairs = scaled(content, content["SOLVER"]["MAX_EPOCH"])
    cfg, same = get_cfg(), get_cfg()
    merge_with_suggestions(cfg, str(config_path("CIA/dn348")), pairs)
    merge_with_suggestions(same, str(config_path("CIA/dn348")))
    assert cfg.SOLVER == same.SOLVER and len(cfg.MODEL.LOSSES.MAA.WEIGHT) == 2
    with pytest.raises(ConfigError, match="no SOLVER.MAX_EPOCH"):
        scaled({}, 3)


def words_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    seen: list[list[str]] = []
    monkeypatch.setattr(cli, "main", seen.append)
    app.main(words)
    return seen[0]


def test_train_and_eval_are_fast_reids_command_line(
    own: OwnImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "cia", "--day", "day", "--night", "night", "--out", "first", "--gpus", "2", "SEED", "3"]
    found = words_of(monkeypatch, *words)
    assert found[:2] == ["--config-file", str(ROOT / "projects/CIA/configs/folder.yml")]
    assert found[found.index("--num-gpus") + 1] == "2" and found[-4:] == ["OUTPUT_DIR", "first", "SEED", "3"]
    run = tmp_path / "runs" / "a b"
    run.mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"has no config.yaml, so it is not the folder of a run"):
        words_of(monkeypatch, "eval", str(run))
    (run / "config.yaml").write_text("")
    with pytest.raises(SystemExit, match="has no checkpoint yet"):
        words_of(monkeypatch, "eval", str(run))
    for name in ("model_final", "model_0003"):
        (run / f"{name}.pth").touch()
    assert last_checkpoint(run).name == "model_final.pth"
    (run / "last_checkpoint").write_text("model_0003.pth")
    found = words_of(monkeypatch, "eval", str(run), "TEST.WITHIN_DOMAIN", "True")
    assert found[:3] == ["--config-file", str(run / "config.yaml"), "--eval-only"]
    assert found[-6:-4] == ["MODEL.WEIGHTS", str(run / "model_0003.pth")]
    assert found[-4:-2] == ["OUTPUT_DIR", str(run)]
    (run / "last_checkpoint").write_text("../../elsewhere.pth")
    assert last_checkpoint(run).name == "model_final.pth"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "DNMini/base", "SEED"], "SEED has no value"),
        (["train", "DNMini/base", "seed", "3"], "'seed' is no key of a config"),
        (["train", "DNMini/base", "--resum"], "There is no option --resum"),
        (["train", "DNMini/base", "--epochs", "0"], "Invalid value for .--epochs.: "),
        (["demo", "--fast"], "There is no option --fast"),
    ],
)
def test_words_that_are_no_pairs_are_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(SystemExit, match=f"^error: {sentence}"):
        app.main(words)
