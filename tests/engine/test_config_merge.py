from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastreid.config import CfgNode, get_cfg
from hypothesis import given
from hypothesis import strategies as st

from dnreid_plugins.runtime.config_files import ConfigError, known_keys, merge_with_suggestions, nearest


def config() -> CfgNode:
    return CfgNode(
        {
            "MODEL": {"DEVICE": "cuda", "BACKBONE": {"DEPTH": "50x", "LAST_STRIDE": 1}, "MEAN": [0.5, 0.5]},
            "SOLVER": {"BASE_LR": 3e-4, "MAX_EPOCH": 120, "STEPS": [30, 55], "NESTEROV": False},
            "DATASETS": {"NAMES": ("Market1501",)},
            "FREE": None,
            "OUTPUT_DIR": "logs",
        }
    )


def merged(text: str, folder: Path, *opts: str) -> CfgNode:
    cfg = config()
    (folder / "c.yml").write_text(text)
    merge_with_suggestions(cfg, folder / "c.yml", opts)
    return cfg


def test_file_base_and_command_line_merge_in_this_order(tmp_path: Path) -> None:
    (tmp_path / "base.yml").write_text("SOLVER: {BASE_LR: 0.1, MAX_EPOCH: 7}\nMODEL: {DEVICE: cpu}\n")
    cfg = merged(
        "_BASE_: base.yml\nSOLVER: {MAX_EPOCH: 8}\n", tmp_path, "SOLVER.STEPS", "[1, 2]", "OUTPUT_DIR", "7"
    )
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.STEPS) == (0.1, 8, [1, 2])
    assert (cfg.MODEL.DEVICE, cfg.OUTPUT_DIR) == ("cpu", "7")


@pytest.mark.parametrize(
    ("opts", "key", "expected"),
    [
        (("SOLVER.BASE_LR", "1"), "SOLVER.BASE_LR", 1.0),
        (("SOLVER.BASE_LR", "3e-4"), "SOLVER.BASE_LR", 3e-4),
        (("SOLVER.MAX_EPOCH", "3.0"), "SOLVER.MAX_EPOCH", 3),
        (("DATASETS.NAMES", "['A', 'B']"), "DATASETS.NAMES", ("A", "B")),
        (("DATASETS.NAMES", "()"), "DATASETS.NAMES", ()),
        (("MODEL.MEAN", "(1.0,)"), "MODEL.MEAN", [1.0]),
        (("SOLVER.NESTEROV", "True"), "SOLVER.NESTEROV", True),
        (("MODEL.BACKBONE.DEPTH", "101"), "MODEL.BACKBONE.DEPTH", "101"),
        (("FREE", "3"), "FREE", 3),
        (("--", "SOLVER.MAX_EPOCH", "3"), "SOLVER.MAX_EPOCH", 3),
    ],
)
def test_values_take_the_type_of_the_default(opts: tuple[str, ...], key: str, expected: Any) -> None:
    cfg = config()
    merge_with_suggestions(cfg, "", opts)
    value: Any = cfg
    for name in key.split("."):
        value = value[name]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("SOLVER.BASE_LRR", "SOLVER.BASE_LR"),
        ("SOLVER.LR", "SOLVER.BASE_LR"),
        ("solver.base_lr", "SOLVER.BASE_LR"),
        ("BASE_LR", "SOLVER.BASE_LR"),
        ("MODEL.DEPTH", "MODEL.BACKBONE.DEPTH"),
        ("MODEL.BACKBONE.STRIDE.LAST", "MODEL.BACKBONE.LAST_STRIDE"),
        ("OUTPUT_DIR.X", "OUTPUT_DIR"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(key: str, suggestion: str) -> None:
    cfg = config()
    with pytest.raises(ConfigError, match=rf"the command line sets {key}, .*did you mean {suggestion}\?"):
        merge_with_suggestions(cfg, "", [key, "1"])
    assert cfg == config()


def test_an_unknown_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"c\.yml sets SOLVER\.MAX_EPOCHS.*did you mean SOLVER\.MAX_EPOCH\?"
    ):
        merged("SOLVER: {MAX_EPOCHS: 3}", tmp_path)


def test_nothing_is_merged_when_one_key_is_wrong() -> None:
    cfg = config()
    with pytest.raises(ConfigError):
        merge_with_suggestions(cfg, "", ["SOLVER.MAX_EPOCH", "3", "SOLVER.NOTHING_LIKE_IT", "1"])
    assert cfg == config()


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.MAX_EPOCH"], "'SOLVER.MAX_EPOCH', which has no value"),
        (["SOLVER.MAX_EPOCH", "2.5"], "to 2.5; it must be a whole number such as 120"),
        (["SOLVER.MAX_EPOCH", "many"], "to 'many'; it must be a whole number such as 120"),
        (["SOLVER.MAX_EPOCH", "True"], "to True; it must be a whole number such as 120"),
        (["SOLVER.BASE_LR", "fast"], "to 'fast'; it must be a number such as 0.00"),
        (["SOLVER.NESTEROV", "1"], r"to 1; it must be True or False\.$"),
        (["DATASETS.NAMES", "DNMini"], r"to 'DNMini'; it must be a tuple such as \('DNMini',\)"),
        (
            ["SOLVER.MAX_EPOCH", "3", "--resume"],
            "--resume is among the KEY VALUE pairs, .* put all flags before",
        ),
        (["--eval-only", "SOLVER.MAX_EPOCH", "3"], "--eval-only is among"),
        (["SOLVER", "3"], "but it is a section"),
        (["ABSOLUTELY.UNLIKE", "3"], "which is not a config key; it lists no such section"),
    ],
)
def test_wrong_values_are_refused_in_one_sentence(opts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        merge_with_suggestions(config(), "", opts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a config in yaml"),
        ("- a\n- b\n", "is not a config in yaml|holds a list"),
        ("a: [", "is not a config in yaml"),
        ("just words", "is not a config in yaml|holds a str"),
        ("_BASE_: absent.yml\n", r"names a _BASE_ that cannot be read .*absent\.yml: No such file"),
        ("_BASE_: /\n", r"names a _BASE_ that cannot be read \(/: Is a directory\)"),
        ("_BASE_: c.yml\n", "its own base"),
        ("_BASE_: 3\n", "is not a config in yaml"),
        ("SOLVER: !!python/object/apply:os.system ['true']\n", "is not a config in yaml"),
        ("SOLVER: 3\n", "but it is a section"),
    ],
)
def test_broken_files_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        merged(text, tmp_path)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_and_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not a config in yaml"):
        merge_with_suggestions(config(), tmp_path / "c.yml")
    with pytest.raises(ConfigError, match="There is no config file"):
        merge_with_suggestions(config(), tmp_path / "absent.yml")


def test_a_frozen_config_stays_frozen() -> None:
    cfg = config()
    cfg.freeze()
    merge_with_suggestions(cfg, "", ["SOLVER.MAX_EPOCH", "3"])
    assert cfg.is_frozen()
    assert cfg.SOLVER.MAX_EPOCH == 3


@given(st.lists(st.one_of(st.sampled_from(known_keys(config())), st.text(max_size=30)), max_size=6))
def test_any_command_line_is_merged_or_refused(opts: list[str]) -> None:
    cfg = config()
    try:
        merge_with_suggestions(cfg, "", opts)
    except ConfigError as error:
        assert len(str(error)) > 20
    assert known_keys(cfg) == known_keys(config())


@given(st.binary(max_size=60))
def test_any_file_is_merged_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "c.yml"
    path.write_bytes(content)
    try:
        merge_with_suggestions(config(), path)
    except ConfigError as error:
        assert "c.yml" in str(error)


def test_nearest() -> None:
    assert nearest("tripletloss", ["CrossEntropyLoss", "TripletLoss"]) == "TripletLoss"
    assert nearest("xyz", ["CrossEntropyLoss"]) is None
    assert nearest("x", []) is None


@pytest.mark.parametrize(
    ("file", "opts", "tests"),
    [
        ("[A]|[A]", ["DATASETS.NAMES", "('B',)"], ("B",)),
        ("[A]|[A]", ["DATASETS.NAMES", "('B',)", "DATASETS.TESTS", "('A',)"], ("A",)),
        ("[A]|[C]", ["DATASETS.NAMES", "('B',)"], ("C",)),
        ("[A]|[A]", ["SOLVER.MAX_EPOCH", "2"], ("A",)),
    ],
)
def test_the_scored_sets_follow_the_trained_ones(
    tmp_path: Path, file: str, opts: list[str], tests: tuple[str, ...]
) -> None:
    cfg = get_cfg()
    names, scored = file.split("|")
    (tmp_path / "c.yml").write_text(f"DATASETS: {{NAMES: {names}, TESTS: {scored}}}\n")
    merge_with_suggestions(cfg, tmp_path / "c.yml", opts)
    assert tuple(cfg.DATASETS.TESTS) == tests
