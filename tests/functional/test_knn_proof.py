"""The proof of the rounded search: bounds that hold for every pair, and exact tables whatever the rows are like."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dnreid_plugins.functional.neighbours import (
    _candidates,
    _cuda_search,
    _filter,
    _knn_kernels,
    _product,
    knn,
)
from dnreid_plugins.functional.neighbours.knn import Neighbours, knn_across, knn_table

NUM, DIM, K = 260, 24, 7


def noise(seed: int = 0, dim: int = DIM) -> torch.Tensor:
    return torch.randn(NUM, dim, generator=torch.Generator().manual_seed(seed))


def near_duplicates() -> torch.Tensor:
    rows = torch.nn.functional.normalize(noise(), dim=1)
    rows[20:240] = rows[3] + 1e-5 * noise(1)[20:240]
    return rows


def one_ulp_apart() -> torch.Tensor:
    angle = torch.arange(NUM, dtype=torch.float64)[torch.randperm(NUM)] * 2.5e-7
    return torch.stack([angle.cos(), angle.sin()], dim=1).float()


def identical_pictures() -> torch.Tensor:
    rows = noise()
    rows[torch.randperm(NUM)[:200]] = rows[0].clone()
    return rows


ROWS: dict[str, Callable[[], torch.Tensor]] = {
    "plain": noise,
    "near duplicates": near_duplicates,
    "one ulp apart": one_ulp_apart,
    "identical pictures": identical_pictures,
    "constant": lambda: torch.full((NUM, DIM), 0.3),
    "zero": lambda: torch.zeros(NUM, DIM),
    "collapsed": lambda: 5 + noise()[:1] + 1e-4 * noise(1),
    "far from 0": lambda: 100 + 0.1 * noise(),
    "signs": lambda: noise(dim=8).sign(),
    "huge and tiny": lambda: noise() * 10.0 ** torch.linspace(-17, 17, NUM)[torch.randperm(NUM), None],
    "all tiny": lambda: noise() * 1e-19,
    "no distance in float32": lambda: noise() * 1e-25,
    "denormal": lambda: noise() * 1e-41,
    "distances beyond float32": lambda: torch.nn.functional.normalize(noise(), dim=1) * 1.7e19,
    "one large number": lambda: torch.cat([noise(), 1e4 * noise()[:, :1]], dim=1),
}


def exact(queries: torch.Tensor, reference: torch.Tensor, k: int) -> Neighbours:
    """Float32 differences, squares summed in float64, rounded once; lower index first among equals."""
    steps = (queries[:, None] - reference[None]).numpy().astype(np.float64)
    with np.errstate(over="ignore"):
        distances = (steps**2).sum(axis=2).astype(np.float32)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k].astype(np.int32)
    return Neighbours(order, np.take_along_axis(distances, order, axis=1))


def assert_equal(found: Neighbours, true: Neighbours) -> None:
    np.testing.assert_array_equal(found.indices, true.indices)
    np.testing.assert_array_equal(found.distances, true.distances)


@pytest.fixture(params=["int8", "float32"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both products, also where the processor has no fast int8 one: torch's own is exact everywhere."""
    monkeypatch.setattr(_filter, "has_int8", lambda: request.param == "int8")
    if request.param == "int8" and not _product.has_int8():
        monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.double() @ b.double()).to(torch.int32))
    yield request.param


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("block", [61, 1024])
def test_the_table_is_exact(name: str, block: int, product: str) -> None:
    rows = ROWS[name]()
    assert_equal(knn_table(rows, K, block=block), exact(rows, rows, K))


@pytest.mark.parametrize("name", ROWS)
def test_the_table_across_is_exact(name: str, product: str) -> None:
    rows = ROWS[name]()
    queries, reference = rows[:90], rows[90:]
    assert_equal(knn_across(queries, reference, K, block=50), exact(queries, reference, K))


@pytest.mark.parametrize("name", ROWS)
def test_the_bounds_hold_for_every_pair(name: str, product: str) -> None:
    rows = ROWS[name]()
    rounded = _filter.rounded_filter(rows)
    every = slice(0, NUM)
    products = rounded.start(every)(every)
    low = np.empty((NUM, NUM), np.float32)
    for i in range(NUM):
        _knn_kernels._lower_bounds(products[i], rounded.bounds, i, 0, low[i])
    apart = (rows[:, None].double() - rows[None].double()).square().sum(dim=2).numpy()
    table = exact(rows, rows, NUM)
    assert table.distances is not None
    stated: NDArray[np.float64] = np.empty((NUM, NUM))
    np.put_along_axis(stated, table.indices.astype(np.int64), table.distances.astype(np.float64), axis=1)
    for true in (apart, stated):
        true = true * rounded.unit
        assert (low <= true).all()
        finite = np.isfinite(true)
        assert (true <= np.maximum(low, 0) + rounded.rooms()[:, None])[finite].all()
    if name == "plain":  # and say something: a bound that is always 0 holds, too
        assert (low > 0).mean() > 0.9


@pytest.mark.parametrize("name", ROWS)
def test_the_search_of_a_gpu_is_exact(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps, on the CPU."""
    rows = ROWS[name]()
    monkeypatch.setattr(_cuda_search, "SPARE", 1)
    found = _cuda_search.search_cuda(rows[:90], rows, K, block=50, progress=None)
    assert_equal(found, exact(rows[:90], rows, K))


def test_few_rows_are_searched_twice(product: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first search proves nearly all rows of usual data."""
    calls: list[int] = []
    complete = _knn_kernels.complete
    monkeypatch.setattr(
        "dnreid_plugins.functional.neighbours._candidates.complete",
        lambda block, *rest: calls.append(len(block)) or complete(block, *rest),
    )
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(20, 64, generator=generator)
    rows = centres.repeat(40, 1) + 0.7 * torch.randn(800, 64, generator=generator)
    assert_equal(knn_table(rows, 20), exact(rows, rows, 20))
    assert sum(calls) <= 8
    rows = near_duplicates()
    knn_table(rows, K)
    assert sum(calls) >= 200


class Together:
    """Threads in place of processes: what each hands over lies in a shared box, between two barriers."""

    def __init__(self, rank: int, boxes: list[list[NDArray[np.generic]]], barrier: threading.Barrier) -> None:
        self.rank, self.count, self.boxes, self.barrier = rank, len(boxes), boxes, barrier

    def exchange(self, parts: list[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        self.boxes[self.rank] = [part.copy() for part in parts]
        self.barrier.wait(300)
        found = [box[self.rank] for box in self.boxes]
        self.barrier.wait(300)
        return found


def together(count: int, search: Callable[[Together], Neighbours]) -> list[Neighbours]:
    barrier = threading.Barrier(count)
    boxes: list[list[NDArray[np.generic]]] = [[] for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda rank: search(Together(rank, boxes, barrier)), range(count)))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["plain", "near duplicates", "constant", "huge and tiny"])
def test_several_processes_find_the_table_of_one(name: str, count: int, product: str) -> None:
    rows = ROWS[name]()
    for found in together(count, lambda peers: knn_table(rows, K, block=50, peers=peers)):
        assert_equal(found, exact(rows, rows, K))
    for found in together(count, lambda peers: knn_across(rows[:30], rows, K, block=50, peers=peers)):
        assert_equal(found, exact(rows[:30], rows, K))


@pytest.mark.parametrize("num", [0, 1, 2, 5])
def test_more_processes_than_rows(num: int) -> None:
    rows = noise()[:num]
    for found in together(4, lambda peers: knn_table(rows, 3, peers=peers)):
        assert_equal(found, exact(rows, rows, min(3, num)))
    for found in together(4, lambda peers: knn_across(rows, noise(), 3, peers=peers)):
        assert_equal(found, exact(rows, noise(), 3))


def test_each_pair_of_blocks_is_multiplied_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[tuple[int, ...]] = []
    feed = _candidates.feed_rows

    def seen(product: NDArray[np.generic], row0: int, col0: int, *rest: object) -> None:
        blocks.append(tuple(sorted((row0, col0))))
        feed(product, row0, col0, *rest)

    monkeypatch.setattr(_candidates, "feed_rows", seen)
    rows = noise()
    together(3, lambda peers: knn_table(rows, K, block=50, peers=peers))
    assert sorted(blocks) == sorted((row, col) for col in range(0, NUM, 50) for row in range(0, col + 1, 50))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_find_the_table_of_one(threads: int, product: str) -> None:
    """Blocks so small that threads ask for the same rows all the time."""
    rows, before = near_duplicates(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for _ in range(5):
            assert_equal(knn_table(rows, K, block=13), exact(rows, rows, K))
            assert_equal(knn_across(rows[:40], rows, K, block=13), exact(rows[:40], rows, K))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn.matmul, "fp32_precision"), reason="torch before 2.9 has one switch"
)
def test_threads_leave_the_precision_of_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set for the whole search: a thread that set it back would do so under the products of the others."""
    seen, start = [], _filter.multiplier
    setting = torch.backends.mkldnn.matmul
    monkeypatch.setattr(_filter, "has_int8", lambda: False)

    def multiplier(right: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        seen.append(setting.fp32_precision)
        return start(right)

    monkeypatch.setattr(_filter, "multiplier", multiplier)
    knn._check_loops()
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        seen.clear()
        knn_table(noise(), K, block=100)
        assert seen.pop(0) == "bf16"  # for the order of the rows
        assert set(seen) == {"ieee"} and setting.fp32_precision == "bf16"
    finally:
        setting.fp32_precision = before


def test_the_threads_of_torch_are_given_back_when_a_search_is_stopped() -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            knn_table(noise(), K, block=50, progress=stop)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_rows_of_a_group_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_filter, "CELL", 10)
    centres = 20 * torch.nn.functional.normalize(noise()[:13], dim=1)
    groups = torch.arange(NUM) % 13  # spread over all rows; each holds two of the rows looked at
    order = _filter.near_together(centres[groups] + 0.01 * noise(1))
    assert sorted(order.tolist()) == list(range(NUM))
    changes = int((groups[order][1:] != groups[order][:-1]).sum())
    assert changes <= 25 and int((groups[1:] != groups[:-1]).sum()) == NUM - 1


@pytest.mark.parametrize("count", range(1, 9))
def test_each_pair_of_a_ring_comes_once(count: int) -> None:
    pairs = [(c, (c - d) % count) for c in range(count) for d in _candidates.steps_back(c, count)]
    assert sorted(map(sorted, pairs)) == [[a, b] for a in range(count) for b in range(a + 1, count)]
    each = [sum(c == place for c, _ in pairs) for place in range(count)]
    assert max(each) - min(each) <= 1


@pytest.mark.skipif(not _product.has_int8(), reason="this processor has no fast int8 product")
def test_int8_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    multiply = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: shapes.append(a.shape) or multiply(a, b))
    knn_table(noise(), K, block=100)
    assert len(shapes) == 6


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, b: (a.float() @ b.float()).clamp(-(2**15), 2**15 - 1).to(torch.int32),  # saturates
        lambda a, b: (a.to(torch.bfloat16) @ b.to(torch.bfloat16)).to(torch.int32),
    ],
)
def test_an_inexact_int8_product_is_not_used(
    wrong: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(torch, "_int_mm", wrong)
    _product.has_int8.cache_clear()
    try:
        assert not _product.has_int8()
        rows = noise()
        assert_equal(knn_table(rows, K), exact(rows, rows, K))
    finally:
        _product.has_int8.cache_clear()


def test_without_vnni_nothing_is_multiplied_in_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: pytest.fail("int8"))
    _product.has_int8.cache_clear()
    try:
        knn_table(noise(), K)
    finally:
        _product.has_int8.cache_clear()
