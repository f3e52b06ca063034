"""Short tables of all available choices: ``dnreid methods`` and the like. The list of configs needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastreid.config import CfgNode
from tabulate import tabulate

from ..runtime.shipped import config_names, config_path

OURS = "dnreid_plugins."
#: A longer text is cut, so that a row fits on one line of a terminal.
WIDTH = 90


def text_of(kind: str) -> str:
    """The table of ``kind``, one of `KINDS`.

    Raises:
        ValueError: there is no such list.
    """
    if kind not in KINDS:
        raise ValueError(f"There is no list {kind!r}; the lists are {', '.join(KINDS)}.")
    return KINDS[kind]()


def _methods() -> str:
    from ..modeling.loss_heads import LOSS_HEAD_REGISTRY

    systems = [(name, _parts(_config(name))) for name in config_names() if "dnmini/" in name.lower()]
    parts = [(name, _first_line(part)) for name, part in LOSS_HEAD_REGISTRY._obj_map.items()]
    return "\n\n".join(
        [
            _table(systems, "method, by its config on DNMini", "parts"),
            _table(parts, "part (MODEL.LOSSES.NAME)", "what it does"),
        ]
    )


def _configs() -> str:
    rows = []
    for name in config_names():
        cfg = _config(name)
        rows.append((name, ", ".join(cfg.get("DATASETS", {}).get("NAMES", ())), str(config_path(name))))
    return _table(rows, "config", "trains on", "--config-file")


def _datasets() -> str:
    from fastreid.data.datasets import DATASET_REGISTRY

    return _registered(DATASET_REGISTRY, "DATASETS.NAMES, DATASETS.TESTS")


def _backbones() -> str:
    from fastreid.modeling.backbones import BACKBONE_REGISTRY

    return _registered(BACKBONE_REGISTRY, "MODEL.BACKBONE.NAME")


def _registered(registry: Any, key: str) -> str:
    """Ours first, with one line each; then the names of fast-reid's own."""
    known = registry._obj_map
    ours = [(name, _first_line(one)) for name, one in known.items() if one.__module__.startswith(OURS)]
    own = [name for name, one in known.items() if one.__module__.startswith("fastreid.")]
    return f"{_table(ours, key, 'what it is')}\n\nfast-reid's own: {', '.join(own)}"


def _config(name: str) -> Any:
    return CfgNode.load_yaml_with_base(str(config_path(name)))


def _parts(cfg: Any) -> str:
    return " + ".join(cfg.get("MODEL", {}).get("LOSSES", {}).get("NAME", ()))


def _first_line(documented: Any) -> str:
    text = (documented.__doc__ or "").strip().split("\n")[0].replace("``", "").replace("`", "")
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 4].rsplit(' ', 1)[0]} ..."


def _table(rows: Sequence[tuple[str, ...]], *headers: str) -> str:
    return tabulate(rows, headers=headers, tablefmt="simple")


KINDS: dict[str, Callable[[], str]] = {
    "methods": _methods,
    "datasets": _datasets,
    "configs": _configs,
    "backbones": _backbones,
}
