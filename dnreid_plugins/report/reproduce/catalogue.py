"""Which tables and figures there are: ``projects/<System>/reproduce.yml``, read as data.

An item has rows, a row is a system's config for a data set and overrides, and published figures by data set. Words in
braces are replaced: ``{data}``, ``{value}`` of a sweep, and what the file's ``words`` say of the data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...runtime.sentences import ConfigError
from ...runtime.shipped import config_path, home, instead, one_of

#: Directions of a search, in the order in which the papers print them.
DIRECTIONS = ("D2N", "N2D")
KINDS = ("table", "sweep", "zero-shot", "figure", "statistics", "cost")
#: The kinds that look at the weights of a run, not only at its figures.
OF_WEIGHTS = ("zero-shot", "figure")

Published = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class DataSet:
    """A data set that items are made on.

    Attributes:
        name: in the registry.
        config: the last part of the names of its configs.
        like: the published set whose figures stand beside ours; itself, unless it is rendered.
        other: the set that a model trained here is tested on where none is named.
        protocol: a config whose changes over its base every row gets.
        rendered: made by the package itself.
    """

    name: str
    config: str
    like: str
    other: str
    protocol: str = ""
    rendered: bool = False

    @property
    def settings(self) -> str:
        """The set whose words a file of items has for it: of those with the same configs the first."""
        return next(one.name for one in SETS.values() if one.config == self.config)


SETS = {
    one.name: one
    for one in (
        DataSet("DN348", "dn348", "DN348", "DNWild"),
        DataSet("DNWild", "dnwild", "DNWild", "DN348"),
        DataSet("RegDB", "regdb", "RegDB", "DN348"),
        DataSet("DNMini", "dnmini", "DN348", "DNMiniWild", rendered=True),
        DataSet("DNMiniWild", "dnmini", "DNWild", "DNMini", protocol="DNMiniWild/protocol", rendered=True),
    )
}


@dataclass(frozen=True)
class PaperRow:
    """A row of an item on a data set.

    ``config``: below the folder of the shipped configs, "" where there is none, and ``why`` says why; ``value``: of a
    sweep; ``published``: ``{direction: {metric: percent}}``.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    published: Published = field(default_factory=dict)
    why: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Item:
    """A table or figure; ``content`` is what the file says of it, ``paper`` and ``words`` what it says of all."""

    id: str
    title: str
    kind: str
    paper: str
    of: tuple[str, ...]
    metrics: tuple[str, ...]
    content: Mapping[str, Any]
    words: Mapping[str, Mapping[str, Any]]
    scale: float = 1.0

    @property
    def directions(self) -> tuple[str, ...]:
        return tuple(self.content.get("directions", DIRECTIONS))

    @property
    def notes(self) -> list[str]:
        return list(self.content.get("notes", ()))

    def like(self, data: DataSet) -> str:
        """The published set whose figures stand beside those of ``data``: of an item with another one, that one."""
        return data.like if data.like in self.of or not data.rendered else self.of[0]

    def on(self, data: DataSet) -> bool:
        """Whether the paper has it for this set; a rendered set stands in for all."""
        return data.rendered or data.name in self.of

    def rows(self, data: DataSet, tested_on: DataSet | None = None) -> list[PaperRow]:
        """The rows on a data set; ``tested_on``: of models that are tested there."""
        listed = self._swept(data) if self.kind == "sweep" else self.content.get("rows", ())
        place = self.like(data) if tested_on is None else f"{self.like(data)}>{self.like(tested_on)}"
        return [self._row(one, data, place) for one in listed]

    def _swept(self, data: DataSet) -> list[dict[str, Any]]:
        values, known = self.content["values"], self.content.get("published", {})
        return [
            {
                **self.content["row"],
                "name": f"{self.content['label']} = {value}",
                "value": value,
                "published": known.get(value, {}),
            }
            for value in values.get(data.settings, values["others"])
        ]

    def _row(self, row: Mapping[str, Any], data: DataSet, place: str) -> PaperRow:
        words = {**self.words.get(data.settings, {}), "data": data.config, "value": row.get("value")}
        name = str(row.get("config", "{system}/{data}")).format(system=row["system"], **words)
        config, why = _config(name, row["system"], data)
        return PaperRow(
            str(row["name"]),
            config,
            tuple(str(word).format(**words) for word in row.get("overrides", ())),
            self._published(row.get("published", {}).get(place, "")),
            why,
            row.get("value"),
        )

    def _published(self, text: str) -> Published:
        """``"63.17 38.60 | 76.61 40.20"`` -> ``{"D2N": {"Rank-1": 63.17, ...}, "N2D": ...}``.

        Raises:
            ValueError: it has not one number for every direction and metric.
        """
        if not text:
            return {}
        parts = [[float(word) for word in part.split()] for part in text.split("|")]
        if len(parts) != len(DIRECTIONS) or any(len(part) != len(self.metrics) for part in parts):
            raise ValueError(
                f"{self.id} has the published figures {text!r}, not one for each of {self.metrics}."
            )
        found = {
            direction: {name: round(self.scale * value, 4) for name, value in zip(self.metrics, part)}
            for direction, part in zip(DIRECTIONS, parts)
        }
        return {one: figures for one, figures in found.items() if one in self.directions}


def _config(name: str, system: str, data: DataSet) -> tuple[str, str]:
    """The path of a config below the shipped ones, or "" and why there is none."""
    try:
        return str(config_path(name).relative_to(home())), ""
    except ConfigError:
        built = (home() / "projects" / system).is_dir()
        return "", f"no config for {data.name}" if built else "not built"


def items() -> dict[str, Item]:
    """All items by their ids, the papers in the order of their folders."""
    found: dict[str, Item] = {}
    for path in sorted((home() / "projects").glob("*/reproduce.yml"), reverse=True):
        found |= read(path)
    return found


def read(path: Path) -> dict[str, Item]:
    """The items of a file.

    Raises:
        ValueError: an item is of a kind that there is not.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = {}
    for name, one in content["items"].items():
        if one["kind"] not in KINDS:
            raise ValueError(
                f"{path} has the item {name} of kind {one['kind']!r}; kinds are {', '.join(KINDS)}."
            )
        metrics = tuple(one.get("metrics", content["metrics"]))
        common = (content["paper"], tuple(one["of"]), metrics)
        scale = float(content.get("scale", 1.0))
        found[name] = Item(name, one["title"], one["kind"], *common, one, content.get("words", {}), scale)
    return found


def named(names: Sequence[str]) -> list[Item]:
    """The items of these ids, in any case.

    Raises:
        ValueError: there is no such item.
    """
    known = items()
    found = []
    for name in names:
        chosen = one_of(name, list(known))
        if chosen is None:
            raise ValueError(f"There is no table or figure {name!r}; {instead(name, list(known))}")
        found.append(known[chosen])
    return list({one.id: one for one in found}.values())


def data_set(name: str, option: str = "--data") -> DataSet:
    """The set of this name, in any case.

    Raises:
        ValueError: there is no such set.
    """
    chosen = one_of(name, list(SETS))
    if chosen is None:
        raise ValueError(f"{option} is {name!r}; choose one of {', '.join(SETS)}.")
    return SETS[chosen]
