"""results.json: what a run measured, before and after training."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """The file's content, or an empty dict where there is none or it is damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write through a temporary file, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, path)


def update_results(output_dir: str, **entries: Any) -> None:
    """Merge ``entries`` into ``results.json`` of ``output_dir``; nothing happens for an empty folder name."""
    if output_dir:
        path = Path(output_dir) / "results.json"
        write_json(path, {**read_json(path), **entries})


def read_results(output_dir: str) -> dict[str, Any]:
    """What ``results.json`` of ``output_dir`` holds so far."""
    return read_json(Path(output_dir) / "results.json") if output_dir else {}
