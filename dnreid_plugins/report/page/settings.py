"""What a run was: its config beside its base, what it ran on, and the command that repeats it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from fastreid.config import get_cfg
from fastreid.utils import comm

from ...runtime.config_files import merge_with_suggestions
from ...runtime.files import write_atomically
from .folder import ENVIRONMENT, RunFolder

#: Where data sets are looked for.
DATASETS = "FASTREID_DATASETS"


class Change(NamedTuple):
    """A key with its value in the base and in the run, both as printed."""

    key: str
    base: str
    here: str


class Settings(NamedTuple):
    """``base``: what `changes` are compared with, in words. ``rows``: what the run was and ran on, name and value."""

    base: str
    changes: list[Change]
    whole: str
    rows: list[tuple[str, str]]
    command: str


def printed(cfg: Any, prefix: str = "") -> dict[str, str]:
    """``{dotted key: value as text}``; a list and a tuple of the same values are the same text."""
    found: dict[str, str] = {}
    for key, value in cfg.items():
        if hasattr(value, "items"):
            found |= printed(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = repr(_listed(value))
    return found


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, (list, tuple)) else value


def keep_environment(folder: str, args: Namespace) -> None:
    """Write ``environment.json`` into the folder of a run that begins: command, config file, machine. Main process."""
    if not folder or not comm.is_main_process():
        return
    name = str(Path(args.config_file).absolute()) if args.config_file else ""
    found = {
        "config_file": name,
        "options": [str(word) for word in args.opts],
        "command": sys.argv,
        "folder": os.getcwd(),
        "datasets": os.environ.get(DATASETS, ""),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "devices": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "processes": comm.get_world_size(),
    }
    text = json.dumps(found, indent=2) + "\n"
    write_atomically(Path(folder) / ENVIRONMENT, lambda file: file.write(text.encode()))


def settings_of(run: RunFolder) -> Settings:
    """Everything that the page says of the config and the machine."""
    base, words = _base(run)
    here = printed(run.cfg)
    changes = [
        Change(key, base.get(key, "not there"), value)
        for key, value in here.items()
        if base.get(key) != value and key != "OUTPUT_DIR"
    ]
    return Settings(words, changes, run.cfg.dump(), _rows(run), repeat_command(run))


def _base(run: RunFolder) -> tuple[dict[str, str], str]:
    """The config that the run's file is based on, where it still is there; else fast-reid's defaults and ours."""
    cfg, name = get_cfg(), run.environment.get("config_file", "")
    try:
        path = Path(name)
        base = yaml.safe_load(path.read_text())["_BASE_"]
        merge_with_suggestions(cfg, path.parent / base)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return printed(get_cfg()), "the defaults"
    return printed(cfg), f"{base}, the base of {name}"


def _rows(run: RunFolder) -> list[tuple[str, str]]:
    """Name and value of what identifies a run and of what it ran on; what is not known is left out."""
    results, env = run.results, run.environment
    data = [f"{name}: {digest}" for name, digest in results.get("data", {}).items()]
    rows = [
        ("code", results.get("code_version", "")),
        ("config", results.get("config_hash", "")),
        ("data (images and digest)", "; ".join(data)),
        ("seed", str(results.get("seed", ""))),
        ("Python", env.get("python", "")),
        ("system", env.get("system", "")),
        ("processor", env.get("processor", "")),
        ("GPUs", ", ".join(env.get("devices", []))),
        ("processes", str(env.get("processes", ""))),
        ("started as", shlex.join(env.get("command", []))),
        ("in", env.get("folder", "")),
    ]
    return [(name, str(value)) for name, value in rows if value]


def repeat_command(run: RunFolder) -> str:
    """A command that trains the same config again into another folder."""
    folder = run.folder.absolute()
    words = ["python", "-m", "dnreid_plugins", "train", "--config-file", str(folder / "config.yaml")]
    words += ["OUTPUT_DIR", f"{folder}-again"]
    data = run.environment.get("datasets", "")
    return (f"{DATASETS}={shlex.quote(data)} " if data else "") + shlex.join(words)


def differing(runs: Sequence[RunFolder]) -> list[tuple[str, list[str]]]:
    """Every key that has not the same value in all runs, with its value in each."""
    items = [printed(run.cfg) for run in runs]
    keys = [key for key in dict.fromkeys(k for one in items for k in one) if key != "OUTPUT_DIR"]
    rows: list[tuple[str, list[Any]]] = [(key, [one.get(key, "not there") for one in items]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]
