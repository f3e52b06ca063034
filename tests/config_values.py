"""What tests of shipped configs share: reading one as a run does, and comparing its values."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

from fastreid.config import CfgNode, get_cfg

from dnreid_plugins.runtime.config_files import merge_with_suggestions
from dnreid_plugins.runtime.shipped import config_path

ROOT = Path(__file__).resolve().parents[1]


def read(path: Path) -> CfgNode:
    cfg = get_cfg()
    merge_with_suggestions(cfg, str(path), ["MODEL.DEVICE", "cpu"])
    return cfg


def differences(name: str, expected: dict[str, Any]) -> dict[str, Any]:
    """Keys of a shipped config, such as ``"CIA/dn348"``, whose value is not the expected one; lists are tuples."""
    cfg = read(config_path(name))
    found = {key: reduce(lambda node, part: node[part], key.split("."), cfg) for key in expected}
    return {key: value for key, value in found.items() if _frozen(value) != _frozen(expected[key])}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
