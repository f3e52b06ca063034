"""dnreid suggest through its command: a table, a picture and a config that a run accepts; refusals in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fastreid.config import CfgNode, get_cfg
from PIL import Image

from dnreid_plugins.commands import app
from dnreid_plugins.data.datasets import configure
from dnreid_plugins.engine import preflight
from dnreid_plugins.engine.suggestion import Choice, DomainView, Suggestion, suggestion_text
from dnreid_plugins.engine.suggestion.proposals import _batch, _neighbours, _radius
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.runtime.config_files import ConfigError, merge_with_suggestions
from dnreid_plugins.runtime.shipped import config_path

TINY = str(Path(__file__).resolve().parents[1] / "tiny.yml")


@pytest.fixture
def crops(tiny_root: Path, tiny_cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """The tiny set's images in two folders with names that a config must survive."""
    for word in ("day", "night"):
        shutil.copytree(tiny_root / "dn348" / word, tmp_path / 'it\'s "mine"\n: é' / word)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / 'it\'s "mine"\n: é'
    configure(get_cfg())


def run(*words: str) -> int:
    """The command's exit code; a refusal is raised with its sentence."""
    try:
        return int(app.main(["suggest", *words]) or 0)
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        return int(end.code or 0)


def folders(crops: Path) -> list[str]:
    return ["--day", str(crops / "day"), "--night", str(crops / "night"), "--config", TINY]


def test_it_writes_a_config_that_a_run_accepts(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*folders(crops), "--out", "mine.yml", "--picture", "curve.png") == 0
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for word in ("CLUSTER.K1", "CLUSTER.EPS", "time per epoch", "memory", "dnreid train mine.yml"):
        assert word in told
    cfg = get_cfg()
    merge_with_suggestions(cfg, "mine.yml")
    assert cfg.DATASETS.DAY_DIR == str(crops / "day") and tuple(cfg.DATASETS.NAMES) == ("DayNightFolder",)
    assert 2 <= cfg.CLUSTER.K1 <= 30 and cfg.MODEL.BACKBONE.NAME == "build_tiny_backbone"
    assert cfg.SOLVER.IMS_PER_BATCH % (2 * cfg.DATALOADER.NUM_INSTANCE) == 0
    assert cfg.DATALOADER.ITERS_PER_EPOCH >= 1
    preflight.check(cfg)
    with Image.open("curve.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 400
    assert {path.name for path in tmp_path.iterdir()} == {crops.name, "mine.yml", "curve.png"}


def test_what_exists_is_not_overwritten(crops: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("kept")
    with pytest.raises(
        SystemExit, match=r"error: mine\.yml exists already; give another name or move it away\."
    ):
        run(*folders(crops), "--out", "mine.yml")
    assert (tmp_path / "mine.yml").read_text() == "kept"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "none/mine.yml"], "none is no folder; create it or give another name"),
        (["--picture", "curve.doc"], "curve.doc must end in one of .png, .svg, .pdf"),
        (["--data", "dnmini"], "give one of them"),
    ],
)
def test_a_wrong_word_is_refused_before_the_work(crops: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(SystemExit, match=f"^error: .*{sentence}"):
        run(*folders(crops), *words)
    assert not list(Path().glob("*.yml"))


@pytest.mark.parametrize("left", [0, 1, 3])
def test_too_few_images_are_one_sentence(crops: Path, left: int) -> None:
    for path in sorted(p for p in (crops / "night").rglob("*") if p.is_file())[left:]:
        path.unlink()
    sentence = f"There are {left} night images; two clusters need at least 4" if left else "night"
    with pytest.raises(SystemExit, match=f"^error: .*{sentence}") as caught:
        run(*folders(crops))
    assert str(caught.value).count("\n") <= str(crops).count("\n") * 2 and not Path("suggested.yml").exists()


def view(**given: object) -> DomainView:
    known = {"images": 200, "clusters": 20, "clustered": 180, "size": 10, "radius": 0.5, "curve": None}
    return DomainView(**{**known, **given})  # type: ignore[arg-type]


def both(day: DomainView, night: DomainView) -> dict[Domain, DomainView]:
    return {Domain.DAY: day, Domain.NIGHT: night}


def test_k1_follows_the_larger_clusters_and_never_exceeds_the_images() -> None:
    assert [c.value for c in _neighbours(both(view(size=20), view(size=7)))] == [12, 6]
    assert [c.value for c in _neighbours(both(view(size=90), view()))] == [30, 6]
    assert [c.value for c in _neighbours(both(view(size=0, images=5), view(size=0)))] == [5, 5]


def test_one_radius_where_the_domains_agree_and_auto_where_not() -> None:
    assert _radius(both(view(radius=0.5), view(radius=0.6))).value == 0.55
    assert _radius(both(view(radius=0.4), view(radius=0.6))).value == "auto"


def test_a_batch_never_needs_more_clusters_than_there_are(tiny_cfg: CfgNode) -> None:
    tiny_cfg.SOLVER.IMS_PER_BATCH, tiny_cfg.DATALOADER.NUM_INSTANCE = 64, 4
    assert [c.value for c in _batch(tiny_cfg, both(view(), view()))] == [4, 64]
    assert [c.value for c in _batch(tiny_cfg, both(view(clusters=3), view(size=2)))] == [2, 12]
    assert [c.value for c in _batch(tiny_cfg, both(view(clusters=0, size=0), view(clusters=5)))] == [4, 40]


def test_a_shipped_base_is_named_and_a_settings_key_gives_way_to_a_proposal(tmp_path: Path) -> None:
    found = Suggestion((Choice("CLUSTER.K1", 7, "Since # it is."),), both(view(), view()))
    settings = ["CLUSTER.K1", "9", "DATASETS.DAY_DIR", "a\nb", "PLUGINS", "()"]
    text = suggestion_text(found, config_path("DNMini/base"), settings)
    (tmp_path / "mine.yml").write_text(text)
    assert '_BASE_: "DNMini/base"' in text
    cfg = get_cfg()
    merge_with_suggestions(cfg, tmp_path / "mine.yml")
    assert (cfg.CLUSTER.K1, cfg.DATASETS.DAY_DIR) == (7, "a\nb")
    assert cfg.MODEL.BACKBONE.NAME == "build_shufflenetv2_backbone" and cfg.SOLVER.MAX_EPOCH == 10
    (tmp_path / "mine.yml").write_text("_BASE_: DNMini/bse")
    with pytest.raises(ConfigError, match=r"names a _BASE_ that cannot be read"):
        merge_with_suggestions(cfg, tmp_path / "mine.yml")
