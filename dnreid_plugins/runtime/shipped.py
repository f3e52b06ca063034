"""Find the configs that come with the plug-ins: next to the package in the source tree, inside it in a wheel."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from .sentences import SIMILAR_ENOUGH, ConfigError, nearest

PACKAGE = Path(__file__).resolve().parents[1]
#: A config that runs as it stands.
EXAMPLE = "DNMini/base"
#: Of these two the first that holds ``configs``; ``setup.py`` fills the folder of the wheel.
HOMES = (PACKAGE / "_configs", PACKAGE.parent)


def find_config(name: str | Path) -> Path:
    """The config file ``name``: a path as given, else a shipped config by its name or its path in the source tree.

    Raises:
        ConfigError: there is none.
    """
    if os.path.isfile(name):  # never raises, whatever the name is
        return Path(name)
    return config_path(_short_name(Path(str(name).removesuffix(".yml"))), named_as=str(name))


def config_path(name: str, *, named_as: str = "") -> Path:
    """The file of a shipped config by its name, such as `EXAMPLE`; ``named_as``: what the user wrote.

    Raises:
        ConfigError: there is none of that name.
    """
    known = _configs()
    exact = name if name in known else next((one for one in known if one.lower() == name.lower()), None)
    if exact is not None:
        return known[exact]
    guess = nearest(name, list(known))
    hint = (
        f"did you mean {guess}?"
        if guess
        else f"correct --config-file, or name a shipped one such as {EXAMPLE}."
    )
    raise ConfigError(f"There is no config file {named_as or name}; {hint}")


def config_names() -> list[str]:
    """The names of all configs that a run can be started with."""
    return [name for name in _configs() if not name.rpartition("/")[2].startswith("Base-")]


def systems() -> dict[str, list[str]]:
    """System -> its data sets, such as ``["dn348", "dnmini", ...]``, by the names of its configs."""
    found: dict[str, list[str]] = {}
    for name in config_names():
        system, _, data = name.partition("/")
        if "/" not in data and "projects" in config_path(name).parts[-4:]:
            found.setdefault(system, []).append(data)
    return found


def system_config(system: str, data: str) -> str:
    """The name of the config of a system for a data set, both in any case and spelling: ``("cia", "DN-348")``.

    Raises:
        ConfigError: there is no such system, or none of its configs is for this data set.
    """
    known = systems()
    name = one_of(system, list(known))
    if name is None:
        raise ConfigError(f"There is no system {system!r}; {instead(system, list(known))}")
    found = one_of(data, known[name])
    if found is None:
        raise ConfigError(f"{name} has no config for the data set {data!r}; {instead(data, known[name])}")
    return f"{name}/{found}"


def one_of(name: str, known: Sequence[str]) -> str | None:
    """The one of ``known`` that differs from ``name`` in case, hyphens, underscores and spaces only."""
    return next((one for one in known if _letters(one) == _letters(name)), None)


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter not in "-_ *")


def instead(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about a name that is not known: the nearest ones, else all."""
    by_letters = {_letters(one): one for one in known}
    found = difflib.get_close_matches(_letters(name), list(by_letters), n=3, cutoff=SIMILAR_ENOUGH)
    names = [by_letters[one] for one in found]
    if not names:
        return f"there are {', '.join(known)}."
    return f"did you mean {' or '.join(', '.join(names).rsplit(', ', 1))}?"


def home() -> Path:
    """The folder that holds the shipped ``configs`` and ``projects``."""
    return next((home for home in HOMES if (home / "configs").is_dir()), PACKAGE)


def _configs() -> dict[str, Path]:
    """By name: ``"<system>/dnmini"`` is ``projects/<system>/configs/dnmini.yml``, `EXAMPLE` stands in ``configs``."""
    at = home()
    paths = [*(at / "configs").rglob("*.yml"), *(at / "projects").glob("*/configs/**/*.yml")]
    named = {_short_name(path.relative_to(at).with_suffix("")): path for path in paths}
    return {name: named[name] for name in sorted(named) if not name.endswith("/tables")}


def _short_name(path: Path) -> str:
    return "/".join(part for part in path.parts if part not in ("configs", "projects"))
