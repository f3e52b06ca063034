"""The tests' tiny config for processes that pytest did not start."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch

import dnreid_plugins  # noqa: F401  (patches fast-reid before anything of it is imported)

# isort: split
from fastreid.config import CfgNode, get_cfg

TESTS = Path(__file__).resolve().parent


def register_tiny_backbone() -> Any:
    """The parts of ``tests/conftest.py``, under a name that no other ``conftest`` has."""
    if "tiny_parts" not in sys.modules:
        spec = importlib.util.spec_from_file_location("tiny_parts", TESTS / "conftest.py")
        assert spec is not None and spec.loader is not None
        sys.modules["tiny_parts"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["tiny_parts"]


def tiny_config(opts: list[Any]) -> CfgNode:
    """The tiny config with ``opts``, on one thread; an entry that ends in .yml names another config of this folder."""
    register_tiny_backbone()
    torch.set_num_threads(1)
    configs = [one for one in opts if isinstance(one, str) and one.endswith(".yml")]
    cfg = get_cfg()
    cfg.merge_from_file(str(TESTS / (configs or ["tiny.yml"])[0]))
    cfg.merge_from_list([one for one in opts if one not in configs])
    return cfg
