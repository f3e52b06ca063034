"""Where the configs lie that come with the plug-ins."""

from __future__ import annotations

from pathlib import Path

from .config_merge import ConfigError, nearest

HOME = Path(__file__).resolve().parents[2]


def config_path(name: str) -> Path:
    """The file of a config by its name in `config_names`, such as ``"CIA/dnmini"``.

    Raises:
        ConfigError: there is none of that name.
    """
    known = _configs()
    if name in known:
        return known[name]
    guess = nearest(name, list(known))
    raise ConfigError(
        f"There is no config {name!r}{f'; did you mean {guess}?' if guess else ''} "
        "(`python -m dnreid_plugins list configs` names all)."
    )


def config_names() -> list[str]:
    """The names of all configs that a run can be started with."""
    return list(_configs())


def _configs() -> dict[str, Path]:
    """``{"CIA/dnmini": .../projects/CIA/configs/dnmini.yml, "DNMini/base": .../configs/DNMini/base.yml, ...}``"""
    found = {}
    for place in [HOME / "configs", *sorted((HOME / "projects").glob("*/configs"))]:
        head = "" if place.parent == HOME else f"{place.parent.name}/"
        for path in sorted(place.rglob("*.yml")):
            if not path.stem.startswith("Base-") and path.stem != "tables":
                found[f"{head}{path.relative_to(place).with_suffix('').as_posix()}"] = path
    return found
