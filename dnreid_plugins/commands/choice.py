"""What the words of ``dnreid train`` mean: a config, and the keys that fit it to the images that are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.config_files import ConfigError, read_config_file
from ..runtime.shipped import config_path, find_config, instead, one_of, system_config, systems

#: Configs that a system's run on own images begins from, the first that it has: small and with weights come first.
BASES = ("folder", "dnmini", "dn348")


@dataclass(frozen=True)
class OwnImages:
    """Images that no reader knows: two folders, or a table.

    Raises:
        ConfigError: one folder without the other, folders and a table, or something that is not there.
    """

    day: str = ""
    night: str = ""
    csv: str = ""

    def __post_init__(self) -> None:
        if bool(self.day) != bool(self.night):
            here, missing = ("--day", "--night") if self.day else ("--night", "--day")
            raise ConfigError(f"{here} is given without {missing}; give both folders.")
        if self.day and self.csv:
            raise ConfigError("Both --csv and --day are given; give the table or the two folders.")
        for option, path in (("--day", self.day), ("--night", self.night)):
            if path and not Path(path).expanduser().is_dir():
                raise ConfigError(f"{option} is {path!r}, which is not a folder; correct the path.")
        if self.csv and not Path(self.csv).expanduser().is_file():
            raise ConfigError(f"--csv is {self.csv!r}, which is not a file; correct the path.")

    def __bool__(self) -> bool:
        return bool(self.day or self.csv)

    @property
    def settings(self) -> list[str]:
        """``KEY VALUE`` pairs that name them."""
        name = "DayNightTable" if self.csv else "DayNightFolder"
        sets = [f"DATASETS.{key}" for key in ("NAMES", "TESTS")]
        pairs = [word for key in sets for word in (key, f"('{name}',)")]
        if self.csv:
            return [*pairs, "DATASETS.CSV", self.csv]
        return [*pairs, "DATASETS.DAY_DIR", self.day, "DATASETS.NIGHT_DIR", self.night]


def chosen(named: str, data: str, own: OwnImages, epochs: int | None) -> tuple[Path, list[str]]:
    """The config file that the words name, and the ``KEY VALUE`` pairs on top of it.

    Args:
        named: a system, a shipped config or a config file, in this order of precedence from the back.
        data: a data set of the system, or "".
        own: the user's own images, if any.
        epochs: so many in place of the config's.

    Raises:
        ConfigError: there is no such system, config or data set, or it is not said which data to use.
    """
    if data and own:
        raise ConfigError(f"Both --data {data} and images of your own are given; give one of them.")
    config, is_system = _config(named, data, own)
    content = read_config_file(config)
    settings = []
    if own:
        settings = own.settings
        if "DayNightFolder" not in content.get("DATASETS", {}).get("NAMES", ()):
            # Of a known data set it may be a fixed number; here an epoch uses each image about once.
            settings += ["DATALOADER.ITERS_PER_EPOCH", "0"]
        if is_system:
            settings += ["OUTPUT_DIR", f"logs/{one_of(named, list(systems()))}/own"]
    return config, settings + (scaled(content, epochs) if epochs else [])


def _config(named: str, data: str, own: OwnImages) -> tuple[Path, bool]:
    """The config, and whether it was named by its system alone."""
    if not named:
        raise ConfigError(
            "No system was named; begin with one, such as `dnreid train cia --day mycrops/day --night mycrops/night`, "
            "or with a config (`dnreid methods` and `dnreid configs` list them)."
        )
    known = systems()
    if data:
        return config_path(system_config(named, data)), False
    system = one_of(named, list(known))
    if system is None or Path(named).is_file():
        return _file(named), False
    if not own:
        raise ConfigError(
            f"It is not said what {system} is to be trained on; give --day and --night, --csv, or --data with one of "
            f"{', '.join(known[system])}."
        )
    base = next((base for base in BASES if base in known[system]), None)
    if base is None:
        raise ConfigError(f"{system} has no config to begin from; name one of `dnreid configs`.")
    return config_path(f"{system}/{base}"), True


def _file(named: str) -> Path:
    try:
        return find_config(named)
    except ConfigError:
        if "/" in named or named.endswith((".yml", ".yaml")):
            raise
        raise ConfigError(
            f"There is no system or config {named!r}; {instead(named, list(systems()))}"
        ) from None


def scaled(content: Mapping[str, Any], epochs: int) -> list[str]:
    """``KEY VALUE`` pairs that stretch the schedule of a config to ``epochs``: whatever begins at an epoch begins at
    the same share of the run, an epoch at the earliest."""
    before = content.get("SOLVER", {}).get("MAX_EPOCH")
    if not isinstance(before, int) or before < 1:
        raise ConfigError("The config has no SOLVER.MAX_EPOCH to scale; set the epochs in the config.")

    def epoch(number: int) -> int:
        return min(1 + (number - 1) * epochs // before, epochs)

    pairs = ["SOLVER.MAX_EPOCH", str(epochs)]
    for key, value in _leaves(content):
        section, _, name = key.rpartition(".")
        if key == "SOLVER.STAGES":
            pairs += [key, repr(tuple(sorted({epoch(one) for one in value} - {1})))]
        elif key == "SOLVER.STEPS":
            pairs += [key, repr(tuple(sorted({max(one * epochs // before, 1) for one in value})))]
        elif key == "SOLVER.CHECKPOINT_PERIOD" and value > epochs:
            pairs += [key, str(epochs)]
        elif name == "WEIGHT" and section.startswith("MODEL.LOSSES."):
            steps = {epoch(start): weight for start, weight in value}
            pairs += [key, repr(tuple(steps.items()))]
        elif name in ("START", "LAST") and section.startswith("LABELS."):
            pairs += [key, str(epoch(value))]
    return pairs


def _leaves(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in content.items():
        key = f"{prefix}{name}"
        found += _leaves(value, f"{key}.") if isinstance(value, Mapping) else [(key, value)]
    return found
