"""Short tables of all available choices: ``dnreid methods`` and the like. Those of methods and configs need no
PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastreid.config import CfgNode
from tabulate import tabulate

from ..runtime.shipped import config_names, config_path, systems

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
    rows, variants = [], []
    for name, names in systems().items():
        cfg = _config(f"{name}/{'dn348' if 'dn348' in names else names[0]}")
        rows.append((name, _labels(cfg), _losses(cfg), ", ".join(names)))
    for name in config_names():
        cfg = _config(name)
        if "DNMini" in _data(cfg) and not name.endswith("/dnmini"):
            variants.append((name, _labels(cfg), _losses(cfg)))
    return "\n\n".join(
        [
            _table(rows, "system", "labels", "parts", "configs"),
            _table(variants, "other configs on DNMini", "labels", "parts"),
            "`dnreid train SYSTEM --data CONFIG` or --config-file SYSTEM/CONFIG; `dnreid parts`: what a part does.",
        ]
    )


def _parts() -> str:
    from ..labels import LABEL_SOURCE_REGISTRY, REFINER_REGISTRY
    from ..modeling.blocks import BLOCK_REGISTRY
    from ..modeling.loss_heads import LOSS_HEAD_REGISTRY
    from ..modeling.matchers import MATCHER_REGISTRY

    places = {
        "LABELS.SOURCE": LABEL_SOURCE_REGISTRY,
        "LABELS.REFINERS": REFINER_REGISTRY,
        "MODEL.LOSSES.NAME": LOSS_HEAD_REGISTRY,
        "MODEL.MATCHERS": MATCHER_REGISTRY,
        "MODEL.BLOCKS.NAME": BLOCK_REGISTRY,
    }
    tables = []
    for key, registry in places.items():
        rows = [(name, _first_line(part)) for name, part in sorted(registry._obj_map.items())]
        tables.append(_table(rows, key, "what it does"))
    return "\n\n".join(tables)


def _configs() -> str:
    rows = []
    for name in config_names():
        cfg = _config(name)
        rows.append((name, ", ".join(_data(cfg)), str(config_path(name))))
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


def _data(cfg: Any) -> Sequence[str]:
    names: Sequence[str] = cfg.get("DATASETS", {}).get("NAMES", ())
    return names


def _losses(cfg: Any) -> str:
    return " + ".join(cfg.get("MODEL", {}).get("LOSSES", {}).get("NAME", ()))


def _labels(cfg: Any) -> str:
    """Whether the config trains on true identities, as every architecture of fast-reid's own does."""
    ours = cfg.get("MODEL", {}).get("META_ARCHITECTURE", "").startswith("CrossDomain")
    return "clusters" if ours and cfg.get("LABELS", {}).get("SOURCE") != "Identities" else "identities"


def _first_line(documented: Any) -> str:
    text = (documented.__doc__ or "").strip().split("\n")[0].replace("``", "").replace("`", "")
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 4].rsplit(' ', 1)[0]} ..."


def _table(rows: Sequence[tuple[str, ...]], *headers: str) -> str:
    return tabulate(rows, headers=headers, tablefmt="simple")


KINDS: dict[str, Callable[[], str]] = {
    "methods": _methods,
    "parts": _parts,
    "datasets": _datasets,
    "configs": _configs,
    "backbones": _backbones,
}
