"""``python -m dnreid_plugins doctor``: what is installed, whether the versions fit, and which devices are available.

Only the standard library is imported at the start, so that it runs where other parts do not.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
from pathlib import Path

FASTREID = "1.4.0"
#: Why the messages of ``pip check`` about fast-reid are harmless.
EXPECTED = (
    "pip check complains of its pins, which are of 2023; that is expected, since the plug-ins patch what newer "
    "versions broke (docs/fast-reid-hardened.md)"
)
UNUSED = {"opencv-python-headless": "only its demo and visualizer import it"}


def examine() -> tuple[str, bool]:
    """The report, and whether everything that a run needs is installed."""
    requirements, complete = _requirements()
    fastreid, usable = _fastreid()
    imports, importable = _imports()
    lines = [
        f"Python {platform.python_version()} on {platform.platform()}",
        *requirements,
        *fastreid,
        *imports,
        *(_devices() if importable else []),
        *_data(),
    ]
    well = complete and usable and importable
    lines.append(
        "Everything that a run needs is installed."
        if well
        else "Something is missing: see the lines marked !!."
    )
    return "\n".join(lines) + "\n", well


def _requirements() -> tuple[list[str], bool]:
    """The requirements of this package, and what is installed."""
    try:
        wanted = importlib.metadata.requires("dnreid_plugins") or []
        version = importlib.metadata.version("dnreid_plugins")
    except importlib.metadata.PackageNotFoundError:
        return ["!! dnreid_plugins is not installed, only on the path; run: pip install --editable ."], False
    home = Path(__file__).resolve().parents[1]
    wanted = [text for text in wanted if "extra ==" not in text]
    problems = [text for text in map(_problem, wanted) if text]
    lines = [f"dnreid_plugins {version} in {home}; {len(wanted)} requirements, {len(problems)} not met"]
    return lines + [
        f"!! {text}; run: pip install --upgrade {text.split()[0]}" for text in problems
    ], not problems


def _problem(requirement: str) -> str | None:
    """The problem with one requirement (``"numpy>=2.0"``); None if it is met or for another system."""
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    if wanted.marker is not None and not wanted.marker.evaluate():
        return None
    try:
        found = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{wanted.name} {wanted.specifier} is required and not installed"
    if wanted.specifier.contains(found, prereleases=True):
        return None
    return f"{wanted.name} {wanted.specifier} is required, {found} is installed"


def _fastreid() -> tuple[list[str], bool]:
    """fast-reid's version, and the messages of ``pip check`` about it."""
    command = f"pip install --no-deps fastreid=={FASTREID}"
    try:
        found = importlib.metadata.version("fastreid")
    except importlib.metadata.PackageNotFoundError:
        return [f"!! fast-reid is not installed; run: {command}"], False
    if found != FASTREID:
        return [f"!! fast-reid is {found}, the plug-ins are for {FASTREID}; run: {command}"], False
    # Its metadata writes "torch (==1.13.1)", which an older form of the standard allowed.
    wanted = [re.sub(r"[()]", "", text) for text in importlib.metadata.requires("fastreid") or []]
    unmet = [text for text in map(_problem, wanted) if text]
    lines = [f"fast-reid {found}, installed with --no-deps" + (f"; {EXPECTED}:" if unmet else "")]
    return lines + [
        f"   {text}" + (f" ({UNUSED[text.split()[0]]})" if text.split()[0] in UNUSED else "")
        for text in unmet
    ], True


def _imports() -> tuple[list[str], bool]:
    """Whether the large dependencies can be imported; faiss is included because fast-reid imports it at once."""
    lines = []
    for module, use in (("torch", ""), ("torchvision", ""), ("faiss", " (fast-reid imports it)")):
        try:
            found = importlib.import_module(module)
        except Exception as error:
            lines.append(f"!! {module} cannot be imported: {type(error).__name__}: {error}")
        else:
            lines.append(f"{module} {getattr(found, '__version__', '')}{use}")
    return lines, not any(line.startswith("!!") for line in lines)


def _devices() -> list[str]:
    import torch

    lines = [
        f"CPU: {os.cpu_count()} cores, PyTorch uses {torch.get_num_threads()} threads (MODEL.DEVICE cpu)"
    ]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        lines.append(f"GPU {index}: {properties.name}, {memory:.0f} GiB (MODEL.DEVICE cuda:{index})")
    if not torch.cuda.is_available():
        lines.append("GPU: PyTorch finds none that it can use through CUDA")
    return lines


def _data() -> list[str]:
    root = os.environ.get("FASTREID_DATASETS")
    place = Path(root or "datasets")
    content = (
        ", ".join(sorted(p.name for p in place.iterdir())[:20]) if place.is_dir() else "no such folder yet"
    )
    return [
        f"data: {'FASTREID_DATASETS is' if root else 'FASTREID_DATASETS is not set, so'} {place} ({content})"
    ]
