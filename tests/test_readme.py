"""The README's lines for own folders, taken from the README and executed as they stand."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dnreid_plugins.dnmini import write_dnmini

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"<!-- own folders begin -->\n<!-- not run: [^\n]*-->\n```bash\n(.*?)```\n<!-- own folders end -->",
    re.DOTALL,
)


def own_folder_lines() -> list[str]:
    found = BLOCK.search((ROOT / "README.md").read_text())
    assert found, "the README has no block of lines for own folders"
    return found[1].strip().splitlines()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that holds ``mycrops/day`` and ``mycrops/night``, a few rendered crops without identities."""
    write_dnmini(tmp_path / "set", num_train_ids=4, num_test_ids=1, images_per_domain=8, workers=1)
    for domain in ("day", "night"):
        folder = tmp_path / "home" / "mycrops" / domain
        folder.mkdir(parents=True)
        for path in (tmp_path / "set" / domain).glob("*/*.jpg"):
            path.rename(folder / f"{path.parent.name}-{path.name}")
    return tmp_path / "home"


def execute(line: str, home: Path) -> str:
    names = ("PYTHONPATH", "FASTREID_DATASETS")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        line, shell=True, cwd=home, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(own_folder_lines())))
def test_the_readmes_lines_for_own_folders_run_as_they_stand(number: int, home: Path) -> None:
    said = execute(own_folder_lines()[number], home)
    (table,) = home.rglob("clusters.csv")
    assert str(table.relative_to(home)) in said
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((home / row["path"]).resolve() for row in rows) == sorted(
        (home / "mycrops").resolve().rglob("*.jpg")
    )
    assert {row["domain"] for row in rows} == {"day", "night"} and any(
        int(row["cluster"]) >= 0 for row in rows
    )
    assert "without identities" in said and "nothing is scored" in said
    # Nothing is written but the run's folder: no DNMini beside or among the user's images.
    assert {path.name for path in home.iterdir()} == {"mycrops", "logs"}
    assert {path.suffix for path in (home / "mycrops").rglob("*") if path.is_file()} == {".jpg"}
