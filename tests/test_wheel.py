"""The wheel alone, in an environment that has the libraries but not the source tree, trains in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = (
    "dnreid_plugins",
    "configs",
    "projects",
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
)
SHORT = [
    "DATALOADER.ITERS_PER_EPOCH",
    "2",
    "CLUSTER.K1",
    "5",
    "CLUSTER.MIN_SAMPLES",
    "2",
    "CLUSTER.EPS",
    "0.8",
]
SHORT += ["SOLVER.IMS_PER_BATCH", "16", "TEST.EVAL_START", "False"]


def call(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **environment},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    call(sys.executable, "setup.py", "--quiet", "bdist_wheel", cwd=folder)
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel; all other libraries are those of this environment.

    A .pth file adds their folder to the path without reading the .pth files in it, so that an editable install of
    the source tree stays out.
    """
    home = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(home, with_pip=False)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(
        call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip()
    )
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with zipfile.ZipFile(wheel) as archive:  # a pure wheel is installed by unpacking it
        archive.extractall(site)
    # What pip makes of the entry point.
    points = next(site.glob("dnreid_plugins-*.dist-info/entry_points.txt")).read_text()
    found = re.search(r"^dnreid *= *([\w.]+):(\w+)$", points, re.M)
    assert found is not None, points
    script = f"#!{python}\nimport sys\nfrom {found[1]} import {found[2]}\nsys.exit({found[2]}())\n"
    (python.parent / "dnreid").write_text(script)
    return python


def test_the_wheel_has_every_file_of_the_package_and_every_config(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    own = [p for p in (ROOT / "dnreid_plugins").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert {p.relative_to(ROOT).as_posix() for p in own} <= packed
    configs = [*(ROOT / "configs").rglob("*.yml"), *(ROOT / "projects").glob("*/configs/**/*.yml")]
    configs += (ROOT / "projects").glob("*/reproduce.yml")
    assert {f"dnreid_plugins/_configs/{p.relative_to(ROOT).as_posix()}" for p in configs} <= packed


@pytest.mark.slow
def test_it_trains_on_own_folders_and_bridging_in_an_empty_folder(
    python: Path, tiny_root: Path, tmp_path: Path
) -> None:
    data = {"FASTREID_DATASETS": str(tiny_root), "OMP_NUM_THREADS": "1"}
    own = [word for one in ("day", "night") for word in (f"--{one}", tiny_root / "dn348" / one)]
    train = ["train", "cia", *own, "--out", "own", "--epochs", "1", *SHORT]
    call(python, python.parent / "dnreid", *train, cwd=tmp_path, OMP_NUM_THREADS="1")
    bridging = ["--config-file", "BridgingDayNight/dnmini", *SHORT, "OUTPUT_DIR", "bridging"]
    bridging += [
        "DATASETS.NAMES",
        "('DN348',)",
        "SOLVER.MAX_EPOCH",
        "1",
        "SOLVER.STEPS",
        "()",
        "SOLVER.STAGES",
        "()",
    ]
    bridging += ["PROMPT_STAGE.EPOCHS", "1", "PROMPT_STAGE.WARMUP_EPOCHS", "0"]
    # The second one and the doctor in one process, since the import takes most of the time.
    code = "import sys; from dnreid_plugins import cli; from dnreid_plugins.engine import doctor; "
    code += "cli.main(sys.argv[1:]); "
    said = call(python, "-c", code + "print(doctor.examine()[0])", *bridging, cwd=tmp_path, **data)
    assert f"in {python.parents[1]}" in said and "Everything that a run needs is installed." in said
    for folder, name in ((tmp_path / "own", "DayNightFolder"), (tmp_path / "bridging", "DN348")):
        results = json.loads((folder / "results.json").read_text())
        assert results["finished"] and 0 < results[name]["N2D"]["mAP"] <= 100
        assert (folder / "clusters.csv").is_file()
