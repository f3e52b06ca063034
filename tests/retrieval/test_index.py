"""A gallery: searched exactly, kept whole through kills and full disks, added to without embedding anything twice."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode
from retrieval_world import pick, trained_run

from dnreid_plugins.functional.types import Domain
from dnreid_plugins.retrieval import backends, store
from dnreid_plugins.retrieval.gallery import write_gallery
from dnreid_plugins.retrieval.index import Index
from dnreid_plugins.retrieval.matcher import Matcher
from dnreid_plugins.retrieval.sources import collect


def synthetic(count: int, *, dim: int = 8, kind: Any = "flat", seed: int = 0) -> Index:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = np.random.default_rng(seed).permutation(count)
    entries = [store.Entry(f"/g/{name:05d}.png", Domain(int(name) % 2), str(name % 7)) for name in names]
    return Index(rows, entries, fingerprint="f", kind=kind)


def slowly(index: Index, query: np.ndarray, k: int, domain: int | None) -> list[int]:
    rows = [row for row in range(len(index)) if domain is None or index.domains[row] == domain]
    exact = index.features.astype(np.float64) @ query.astype(np.float64)
    return sorted(rows, key=lambda row: (-np.float32(exact[row]), index.paths[row]))[:k]


@pytest.mark.parametrize("domain", [None, 0, 1])
@pytest.mark.parametrize(("count", "k"), [(1, 3), (2, 1), (150, 10), (150, 400)])
def test_all_rows_are_compared_exactly(count: int, k: int, domain: int | None, monkeypatch: Any) -> None:
    monkeypatch.setattr(backends, "BLOCK", 64)
    index, queries = synthetic(count), synthetic(5, seed=9).features
    index.features[count // 2 :] = index.features[: count - count // 2].copy()  # copies: ties by path
    scores, rows = index.search(queries, k, domain=domain)
    assert rows.tolist() == [slowly(index, query, k, domain) for query in queries]
    expected = np.take_along_axis(queries @ index.features.T, rows, axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_approximate_kinds_find_nearly_all_and_are_always_full(kind: Any, tmp_path: Path) -> None:
    index, queries = synthetic(2000, dim=16, kind=kind), synthetic(40, dim=16, seed=9).features
    exact = Index(index.features, index.entries, fingerprint="f")
    index.save(tmp_path / "g")
    for one in (index, Index.load(tmp_path / "g")):
        assert one.kind == kind
        for domain in (None, "night"):
            scores, rows = one.search(queries, 10, domain=domain)
            true_scores, true_rows = exact.search(queries, 10, domain=domain)
            shared = np.mean([len({*a} & {*b}) / 10 for a, b in zip(rows.tolist(), true_rows.tolist())])
            assert shared > 0.8 and (rows >= 0).all()
            assert (scores <= true_scores).all() and scores[0, 0] == pytest.approx(true_scores[0, 0], abs=0.3)
    few = [row for row in range(2000) if index.domains[row] == 0][5:]
    for row in few:
        index.entries[row] = store.Entry(index.paths[row], Domain.NIGHT)
    index._forget()
    rare = index.search(queries, 10, domain="day")[1]
    allowed = np.flatnonzero(index.domains == 0)
    assert np.sort(rare, axis=1).tolist() == [allowed.tolist()] * 40, "a rare domain is found, too"


def test_what_was_searched_is_saved_without_being_built_again(tmp_path: Path, monkeypatch: Any) -> None:
    index = synthetic(300, kind="ivf")
    found = index.search(index.features[:5], 3)[1]
    monkeypatch.setattr(backends, "build", lambda *a: pytest.fail("built again"))
    index.save(tmp_path / "g")
    loaded = Index.load(tmp_path / "g")
    loaded.save(tmp_path / "h")
    for one in (loaded, Index.load(tmp_path / "h")):
        assert one.search(index.features[:5], 3)[1].tolist() == found.tolist()


def test_what_cannot_be_asked_is_refused() -> None:
    index = synthetic(5)
    with pytest.raises(ValueError, match=r"shape \(2, 9\); the gallery needs \(Q, 8\)"):
        index.search(np.zeros((2, 9), np.float32))
    with pytest.raises(ValueError, match="k is 0"):
        index.search(index.features, 0)
    with pytest.raises(ValueError, match="kind of an index is 'tree'"):
        synthetic(5, kind="tree")


@pytest.fixture
def matcher(tiny_cfg: CfgNode) -> Matcher:
    return Matcher.load(trained_run(tiny_cfg))


def write(folder: Path, matcher: Matcher, images: list[str], **options: Any) -> Any:
    return write_gallery(folder, matcher, collect(images, "night", folder_ids=True), **options)


def same(a: Index, b: Index) -> bool:
    return a.entries == b.entries and np.array_equal(a.features, b.features)


def test_streamed_in_blocks_it_is_the_gallery_of_memory(
    matcher: Matcher, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Matcher.blocks, "__kwdefaults__", {"skip_bad": False, "size": 5})
    images = pick("night", 12)
    write_gallery(tmp_path / "g", matcher, collect(images, "night"))
    index, expected = Index.load(tmp_path / "g", matcher), Index.build(matcher, images, "night")
    assert isinstance(index.features, np.memmap) and index.entries == expected.entries
    np.testing.assert_allclose(index.features, expected.features, atol=2e-6)
    assert index.run == matcher.run and Matcher.of(index).fingerprint == matcher.fingerprint
    expected.save(tmp_path / "h")
    assert same(Index.load(tmp_path / "h"), expected)


def test_adding_embeds_only_what_is_new(matcher: Matcher, tmp_path: Path, monkeypatch: Any) -> None:
    home, gallery = tmp_path / "crops", tmp_path / "g"
    for number, path in enumerate(pick("night", 6)):
        (home / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, home / f"{number % 2}" / f"{number}.png")
    embedded: list[str] = []
    inner = Matcher.embed
    monkeypatch.setattr(
        Matcher, "embed", lambda m, i, *a, **k: embedded.extend(map(str, i)) or inner(m, i, *a, **k)
    )
    write(gallery, matcher, [str(home)])
    before = Index.load(gallery)
    assert before.ids == ["0"] * 3 + ["1"] * 3 and len(embedded) == 6
    shutil.copy(pick("night", 9)[8], home / "1" / "1.png")  # changed
    shutil.copy(home / "0" / "0.png", home / "0" / "copy.png")
    embedded.clear()
    done = write(gallery, matcher, [str(home)], add=True)
    assert (done.unchanged, done.replaced, done.copies, len(done.new)) == (5, 1, 1, 2)
    assert sorted(Path(path).name for path in embedded) == ["1.png", "copy.png"]
    after = Index.load(gallery)
    assert sorted(after.paths) == sorted(map(str, home.glob("*/*.png"))) and len(after) == 7
    fresh = Index.build(matcher, after.paths, "night", ids=after.ids)
    np.testing.assert_allclose(after.features, fresh.features, atol=2e-6)
    both = after.search(fresh.features[[after.paths.index(str(home / "0" / "0.png"))]], 2)[1][0]
    assert [after.paths[row] for row in both] == [str(home / "0" / "0.png"), str(home / "0" / "copy.png")]


def test_a_graph_grows_without_being_built_again(matcher: Matcher, tmp_path: Path, monkeypatch: Any) -> None:
    images = pick("night", 20)
    write_gallery(tmp_path / "g", matcher, collect(images[:15], "night"), kind="hnsw")
    monkeypatch.setattr(backends, "build", lambda *a: pytest.fail("built again"))
    write_gallery(tmp_path / "g", matcher, collect(images[15:], "night"), add=True)
    index = Index.load(tmp_path / "g")
    assert index.kind == "hnsw" and index.structure.ntotal == len(index) == 20
    assert index.search(np.array(index.features), 1)[1][:, 0].tolist() == list(range(20))


def test_a_graph_in_memory_grows_and_is_built_again_once_a_row_goes(
    matcher: Matcher, tmp_path: Path, monkeypatch: Any
) -> None:
    images = [
        str(shutil.copy(path, tmp_path / f"{number}.png")) for number, path in enumerate(pick("night", 20))
    ]
    write_gallery(tmp_path / "g", matcher, collect(images[:15], "night"), kind="hnsw")
    built: list[int] = []
    inner = backends.build
    monkeypatch.setattr(backends, "build", lambda kind, rows: built.append(len(rows)) or inner(kind, rows))
    index = Index.load(tmp_path / "g")
    index.add(matcher, images[15:], "night")
    index.save(tmp_path / "g")
    for one in (index, Index.load(tmp_path / "g")):
        assert one.structure.ntotal == len(one) == 20 and built == []
        assert one.search(np.array(one.features), 1)[1][:, 0].tolist() == list(range(20))
    shutil.copy(pick("night", 21)[20], images[0])
    index.add(matcher, images[:1], "night")
    assert index.structure.ntotal == len(index) == 20 and built == [20]
    assert index.search(np.array(index.features), 1)[1][:, 0].tolist() == list(range(20))


def test_inverted_lists_grow_until_so_many_rows_want_twice_as_many() -> None:
    rows = np.random.default_rng(0).normal(size=(40_000, 4)).astype(np.float32)
    index = backends.build("ivf", rows[:4000])
    few = next(count for count in range(4000, 40_000) if backends.lists_for(count) > 2 * index.nlist)
    assert backends.grown("ivf", index, rows[4000:few]) is None and index.ntotal == 4000
    assert backends.grown("ivf", index, rows[4000 : few - 1]) is index and index.ntotal == few - 1


def test_another_model_is_refused(matcher: Matcher, tiny_cfg: CfgNode, tmp_path: Path) -> None:
    gallery = tmp_path / "g"
    write(gallery, matcher, pick("night", 3))
    tiny_cfg.OUTPUT_DIR = str(tmp_path / "second")
    other = Matcher.load(trained_run(tiny_cfg, seed=1))
    for refused in (
        lambda: Index.load(gallery, other),
        lambda: write(gallery, other, pick("night", 4), add=True),
        lambda: other.search(pick("day", 1), "day", Index.load(gallery)),
        lambda: Matcher.of(Index.load(gallery), run=tmp_path / "second"),
    ):
        with pytest.raises(ValueError, match=r"made by another model \(\w+\) than .*model_final.pth \(\w+\)"):
            refused()
    assert len(Index.load(gallery)) == 3


class FullDisk:
    """Writes fail from the ``after``-th on."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, *args: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")
        os_fsync(*args)


os_fsync = os.fsync


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize("after", [0, 2, 4, 6])
def test_a_full_disk_leaves_the_gallery_that_was_there(
    matcher: Matcher, tmp_path: Path, monkeypatch: Any, after: int, kind: Any
) -> None:
    gallery = tmp_path / "g"
    write(gallery, matcher, pick("night", 4), kind=kind)
    before = Index.load(gallery)
    files = 4 if kind == "hnsw" else 3  # each is forced to the disk, and its folder after it
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", FullDisk(after))
        if after < 2 * files:
            with pytest.raises(OSError, match="No space left"):
                write(gallery, matcher, pick("night", 9), add=True)
            assert same(Index.load(gallery, matcher), before)
    (gallery / "features-0123abcd.npy").write_bytes(b"of a writer that was killed")
    (gallery / ".images-0123abcd.jsonl.0123456789abcdef.part").touch()
    write(gallery, matcher, pick("night", 9), add=True)
    names = {path.name.split("-")[0] for path in gallery.iterdir()}
    assert len(Index.load(gallery)) == 9
    assert names == {"gallery.json", "features", "images", *(["search"] if kind == "hnsw" else [])}
    assert len(list(gallery.iterdir())) == len(names), "nothing is left of the failed one"


def test_a_damaged_or_foreign_folder_is_said_to_be_one(matcher: Matcher, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="exists and is no gallery"):
        write(tmp_path / "mine", matcher, pick("night", 1))
    with pytest.raises(ValueError, match="is no gallery; make one with"):
        Index.load(tmp_path)
    gallery = tmp_path / "g"
    write(gallery, matcher, pick("night", 3), kind="hnsw")
    for kind in ("features", "images", "gallery"):
        damaged = shutil.copytree(gallery, tmp_path / kind)
        file = next(damaged.glob(f"{kind}*"))
        file.write_bytes(file.read_bytes()[:-40])
        with pytest.raises(ValueError, match="is damaged"):
            Index.load(damaged)
    file = next(gallery.glob("search*"))
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match="is damaged"):
        Index.load(gallery).search(torch.eye(16)[:1], 1)


def test_one_writer_at_a_time(matcher: Matcher, tmp_path: Path) -> None:
    from dnreid_plugins.runtime import run_lock

    with store.writing(tmp_path / "g"):
        held = dict(run_lock._HELD)
        run_lock._HELD.clear()  # as another process sees it
        with pytest.raises(ValueError, match="is in use by process .* choose another gallery"):
            write(tmp_path / "g", matcher, pick("night", 1))
        run_lock._HELD.update(held)


def test_moved_together_everything_is_found(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    home = tmp_path / "work"
    tiny_cfg.OUTPUT_DIR = str(home / "run")
    matcher = Matcher.load(trained_run(tiny_cfg))
    (home / "crops").mkdir()
    odd = ["a b.png", 'q"uote.png', "new\nline.png", "<script>é.png", os.fsdecode(b"\xff.png")]
    for path, name in zip(pick("night", 5), odd):
        shutil.copy(path, home / "crops" / name)
    write(home / "g", matcher, [str(home / "crops")])
    expected = Index.load(home / "g").search(matcher.embed(pick("day", 2), "day"), 5)
    moved = home.rename(tmp_path / "else where")
    index = Index.load(moved / "g")
    assert sorted(Path(path).name for path in index.paths) == sorted(odd)
    assert all(os.path.isfile(path) for path in index.paths)
    again = Matcher.of(index).search(pick("day", 2), "day", index, 5)
    assert [[m.row for m in one.matches] for one in again] == expected[1].tolist()
    shutil.rmtree(moved / "run")
    with pytest.raises(ValueError, match="say with --run where it is"):
        Matcher.of(index)
