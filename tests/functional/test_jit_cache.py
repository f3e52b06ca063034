"""The compiled loops on disk: where they lie, and that neither damage nor a full disk ends a run."""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
import torch
from numba.core.caching import IndexDataCacheFile
from numba.core.codegen import CPUCodeLibrary

from dnreid_plugins.functional import _jit
from dnreid_plugins.functional.neighbours import _candidates, knn
from dnreid_plugins.functional.ranking import _kernels

AREA = "compiled loops"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with a function to compile, and a home of its own for the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(numba.config, "CACHE_LOCATOR_CLASSES", "")
    path = tmp_path / "site-packages" / "loops.py"
    path.parent.mkdir()
    path.write_text("def twice(x):\n    return 2 * x\n")
    spec = importlib.util.spec_from_file_location("loops", path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def called(module: ModuleType) -> tuple[Any, list[str]]:
    """A process's first call of the function: the compiled function, and what was said."""
    compiled: Any = _jit.jit(module.twice)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert compiled(21) == 42
    return compiled, [str(one.message) for one in said]


def cache_files(tmp_path: Path, suffix: str) -> list[Path]:
    return sorted((tmp_path / "cache").rglob(f"*.{suffix}"))


@pytest.mark.attack(AREA, "the cache lies in the user's cache folder, not beside the source")
def test_nothing_is_written_beside_the_source(module: ModuleType, tmp_path: Path) -> None:
    assert called(module)[1] == []
    assert cache_files(tmp_path, "nbi") and cache_files(tmp_path, "nbc")
    assert not list((tmp_path / "site-packages").rglob("*.nb?"))
    again, said = called(module)
    assert said == [] and sum(again.stats.cache_hits.values()) == 1
    package = Path(_jit.__file__).parent
    own = [one for one in vars(_kernels).values() if hasattr(one, "stats")]
    assert own and all(not str(one.stats.cache_path).startswith(str(package)) for one in own)


@pytest.mark.attack(AREA, "a loop from another file has changed: the loops that call it are compiled anew")
def test_loops_of_other_files_count(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    (package / "room").mkdir(parents=True)
    (package / "room" / "loops.py").write_text("@jit\ndef once(x): return x\n")
    (package / "plain.py").write_text("pass\n")
    monkeypatch.setattr(_jit, "__file__", str(package / "_jit.py"))

    def from_cache() -> bool:
        _jit.loops_digest.cache_clear()
        return bool(sum(called(module)[0].stats.cache_hits.values()))

    assert not from_cache()
    assert from_cache()
    (package / "plain.py").write_text("a change that no loop sees\n")
    assert from_cache()
    (package / "room" / "loops.py").write_text("@jit\ndef once(x): return -x\n")
    assert not from_cache()


@pytest.mark.attack(AREA, "a damaged file of the cache: compiled anew, said, mended")
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"\0" * len(b), lambda b: b"text" + b]
)
def test_damage_is_repaired(
    module: ModuleType, tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    called(module)
    (path,) = cache_files(tmp_path, suffix)
    path.write_bytes(damage(path.read_bytes()))
    (sentence,) = called(module)[1]
    assert sentence.startswith(str(tmp_path / "cache")) and "damaged files" in sentence
    again, said = called(module)
    assert said == [] and sum(again.stats.cache_hits.values()) == 1


@pytest.mark.attack(AREA, "the disk of the cache is full: the run goes on, the folder is named")
def test_a_full_disk_is_named(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "_save_data", full)
    (sentence,) = called(module)[1]
    assert sentence.startswith(str(tmp_path / "cache")) and "cannot be written (No space left" in sentence
    assert "NUMBA_CACHE_DIR" in sentence


@pytest.mark.attack(AREA, "no folder for the cache can be written: compiled in each process")
def test_without_a_folder_each_process_compiles(module: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert called(module)[1] == []
    assert not list((tmp_path / "site-packages").rglob("*.nb?"))


@pytest.mark.attack(AREA, "kill -9 while a file of the cache is written: the next process is undisturbed")
@pytest.mark.parametrize("name", ["_save_index", "_save_data"])
def test_a_kill_while_it_is_written(
    module: ModuleType, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = os.fork()
    if child == 0:
        replace = os.replace
        kill_at = {"_save_index": "nbi", "_save_data": "nbc"}[name]
        os.replace = lambda a, b: (  # type: ignore[assignment]
            os.kill(os.getpid(), signal.SIGKILL) if str(b).endswith(kill_at) else replace(a, b)
        )
        called(module)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert called(module)[1] == []
    assert sum(called(module)[0].stats.cache_hits.values()) == 1


@pytest.mark.attack(AREA, "kill -9 in the middle of compiling: the next process is undisturbed")
@pytest.mark.parametrize("place", ["add_ir_module", "_optimize_final_module", "serialize_using_object_code"])
def test_a_kill_while_it_compiles(module: ModuleType, place: str) -> None:
    """Between numba's passes, in front of LLVM, behind it, and before the first byte is kept."""
    child = os.fork()
    if child == 0:
        setattr(CPUCodeLibrary, place, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        called(module)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert called(module)[1] == []
    assert sum(called(module)[0].stats.cache_hits.values()) == 1


@pytest.mark.attack(
    AREA, "loops that give wrong numbers: one sentence before the first search, with the folder"
)
def test_wrong_loops_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = _candidates.rerank

    def wrong(rows: Any, keys: Any, used: Any, names: Any, order: Any, indices: Any, *rest: Any) -> None:
        right(rows, keys, used, names, order, indices, *rest)
        indices[np.ix_([7], [0, 1])] = indices[np.ix_([7], [1, 0])]

    monkeypatch.setattr(_candidates, "rerank", wrong)
    knn._check_loops.cache_clear()
    with pytest.raises(RuntimeError, match=r"give wrong results; delete /\S+\.$"):
        knn.knn_table(torch.rand(9, 4), 2)
    monkeypatch.undo()
    knn.knn_table(torch.rand(9, 4), 2)
