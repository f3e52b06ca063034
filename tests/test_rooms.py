"""The package's rooms: none names a method outside that method's own files, none holds more files than one can see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dnreid_plugins
from dnreid_plugins.engine.preflight.model import FASTREID_LOSSES
from dnreid_plugins.engine.stages import STAGE_REGISTRY
from dnreid_plugins.modeling.loss_heads import LOSS_HEAD_REGISTRY
from dnreid_plugins.runtime.sections import SECTIONS

PACKAGE = Path(dnreid_plugins.__file__).resolve().parent
LARGEST_ROOM = 20

#: Where a method lives: its formulas with their sources, its parts, the model that one of them stands on, its stages,
#: and the pre-training of that model.
OWN_FILES = (
    "functional/losses/*",
    "functional/matching/*",
    "functional/memory_update.py",
    "modeling/loss_heads/*",
    "modeling/loss_heads/*/*",
    "modeling/matchers/*",
    "modeling/clip/*",
    "modeling/blocks/*",
    "engine/stages/*",
    "dnmini/pretrain*.py",
)
#: Shared by all methods although they stand in such a room; an ``__init__`` only lists what it has.
SHARED = (
    "modeling/loss_heads/base.py",
    "modeling/loss_heads/fastreid_losses.py",
    "modeling/matchers/base.py",
    "modeling/blocks/base.py",
    "engine/stages/base.py",
)
PAPERS = (
    *("ADCA", "AGW", "CAJ", "Bridging", "CIA", "CLIP-ReID", "DCLNet", "DNDM", "NULC", "PCA", "PCLHD", "RPNR"),
    *("SDCL", "TokenMatcher"),
)


def words() -> set[str]:
    """Names of loss heads, stages, their config sections and papers."""
    heads = set(LOSS_HEAD_REGISTRY.names()) - {name for names in FASTREID_LOSSES.values() for name in names}
    stages = set(STAGE_REGISTRY._obj_map)
    sections = {f"LOSSES.{name.upper()}" for name in heads}
    sections |= {
        path for path, cls in SECTIONS.items() if cls.__module__.startswith("dnreid_plugins.engine.stages.")
    }
    modules = {cls.__module__.rpartition(".")[2] for cls in STAGE_REGISTRY._obj_map.values()}
    return heads | stages | sections | modules | set(PAPERS)


def shared_files() -> list[Path]:
    """Every file that belongs to no method."""
    own = {path for pattern in OWN_FILES for path in PACKAGE.glob(pattern)}
    return sorted(set(PACKAGE.rglob("*.py")) - own | {PACKAGE / name for name in SHARED})


def names_in(path: Path, wanted: set[str]) -> list[str]:
    """``"<line>: <word>"`` for each word in a file; also inside a longer one, `bridging_stats` for instance."""
    pattern = re.compile("|".join(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])" for word in sorted(wanted)))
    loose = re.compile("bridging", re.IGNORECASE)
    lines = path.read_text().splitlines()
    return [
        f"{number}: {found[0]}"
        for number, line in enumerate(lines, start=1)
        if (found := pattern.search(line) or loose.search(line))
    ]


@pytest.mark.parametrize("path", shared_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_shared_file_names_a_method(path: Path) -> None:
    assert names_in(path, words()) == []


def test_the_search_finds_what_it_is_for(tmp_path: Path) -> None:
    """Every word that may not stand in a shared file is found in the files where it may."""
    assert {"ClusterNCE", "DGM", "MMD", "ImageText", "LearnPrompts", "PROMPT_STAGE", "CIA"} <= words()
    own = [path for path in PACKAGE.rglob("*.py") if path not in shared_files()]
    assert len(own) > 25 and sum(bool(names_in(path, words())) for path in own) > 20
    text = tmp_path / "x.py"
    for word in ("if name == 'DGM':", "# as CIA says", "LOSSES.CPML", "def bridging_stats", "learn_prompts"):
        text.write_text(f"a\n{word}\n")
        assert len(names_in(text, words())) == 1, word
    text.write_text("FINANCIAL commands: PGMs\n")
    assert names_in(text, words()) == []


@pytest.mark.parametrize(
    "room",
    sorted({path.parent for path in PACKAGE.rglob("*.py")}),
    ids=lambda path: str(path.relative_to(PACKAGE.parent)),
)
def test_no_room_is_too_large(room: Path) -> None:
    files = [path.name for path in room.iterdir() if path.is_file() and path.name != "__init__.py"]
    assert len(files) <= LARGEST_ROOM, f"{room.name} needs sub-rooms: {sorted(files)}"


ADDITIONS = sorted(
    path for path in (Path(__file__).parent / "additions").iterdir() if list(path.glob("*.yml"))
)


@pytest.mark.parametrize("folder", ADDITIONS, ids=lambda path: path.name)
def test_a_further_system_is_a_config_and_at_most_two_files(folder: Path) -> None:
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    assert [name for name in files if name.endswith(".yml")] == [f"{folder.name}.yml"]
    assert 2 <= len(files) <= 3 and all(name.endswith((".yml", ".py")) for name in files)
