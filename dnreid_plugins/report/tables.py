"""What a table is: its rows, each a config and overrides, as ``projects/<project>/tables.yml`` lists them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

DIRECTIONS = ("D2N", "N2D")


@dataclass(frozen=True)
class Row:
    """One row: its printed name, config below the project folder, overrides and the paper's figures.

    ``reuse``: another row of the table, given as its config, whose finished stages of the same seeds are taken where
    they are there already. A stage being the same computation, the row's result does not depend on that.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    paper: str = ""
    reuse: str = ""

    @property
    def folder(self) -> str:
        """Name of the row's log folder; rows of several tables share it when config and overrides agree."""
        path = Path(self.config)
        system = path.parts[-3:-2] if path.parent.name == "configs" else ()
        words = [*system, path.stem, *self.overrides]
        return re.sub(r"[^A-Za-z0-9.=+-]+", "_", "-".join(words)).lower()


@dataclass(frozen=True)
class Table:
    """One table of ``tables.yml``.

    ``protocol``: a config, by its shipped name or path; what it sets over its base is set in every row (`runs.plan`).
    ``difference_to``: name of the row that the others are compared with, run by run.
    ``picture``: PNG file of these differences, which stands below the table.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    readme: Path
    store: Path
    figures: tuple[str, ...] = ()
    directions: tuple[str, ...] = DIRECTIONS
    start: bool = False
    protocol: str = ""
    difference_to: str = ""
    picture: Path | None = None

    @property
    def marker(self) -> str:
        """What its place in the README is called: a table has one for each protocol."""
        return f"{self.name} {Path(self.protocol).stem}".strip()

    def reference(self) -> Row | None:
        """The row that the others are compared with.

        Raises:
            ValueError: no row has that name.
        """
        if not self.difference_to:
            return None
        found = {row.name: row for row in self.rows}
        if self.difference_to not in found:
            raise ValueError(
                f"The difference is asked for to {self.difference_to!r}, which is no row; rows: {list(found)}."
            )
        return found[self.difference_to]


def load_table(root: Path, project: str, name: str) -> Table:
    """Read one table of ``projects/<project>/tables.yml`` (or ``configs/<project>/tables.yml``).

    Raises:
        ValueError: no such project or table.
    """
    found = {p.parent.name: p for home in ("configs", "projects") for p in (root / home).glob("*/tables.yml")}
    if project not in found:
        raise ValueError(f"There is no project {project!r} with tables; known: {sorted(found)}.")
    path = found[project]
    tables = yaml.safe_load(path.read_text())
    if name not in tables:
        raise ValueError(f"{path} has no table {name!r}; known tables: {sorted(tables)}.")
    content = tables[name]
    rows = tuple(
        Row(
            row["name"],
            os.path.relpath(path.parent / row["config"], root),
            tuple(str(word) for word in row.get("overrides", ())),
            str(row.get("paper", "")),
            str(row.get("reuse", "")),
        )
        for row in content["rows"]
    )
    return Table(
        name,
        content["title"],
        rows,
        root / content.get("readme", path.parent.relative_to(root) / "README.md"),
        path.parent / "results.json",
        figures=tuple(content.get("figures", ())),
        directions=tuple(content.get("directions", DIRECTIONS)),
        start=bool(content.get("start", False)),
        protocol=str(content.get("protocol", "")),
        difference_to=str(content.get("difference_to", "")),
        picture=root / content["picture"] if "picture" in content else None,
    )
