"""Kept images: the same bits as from the files, never those of other files, and a way on where nothing can be kept."""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import resource
import signal
from collections.abc import Callable, Iterator
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
import torchvision.transforms as T
from fastreid.config import CfgNode, get_cfg
from forked import forked
from PIL import Image
from run_helpers import same, train, weights

from dnreid_plugins.data.augment import ErasedBytes, ToPixels
from dnreid_plugins.data.cache import PixelStore, kept_pixels, open_pixels, opening, store
from dnreid_plugins.data.collate import collate, on_device
from dnreid_plugins.data.dataset import DomainDataset
from dnreid_plugins.data.images import read_image
from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.data.loaders import build_inference_loader, build_train_loader
from dnreid_plugins.data.samplers import CrossDomainIdentitySampler
from dnreid_plugins.data.transforms import VIEW_STEPS, build_domain_transform, build_transforms
from dnreid_plugins.evaluation.evaluator import evaluate
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.runtime.generators import seed_generators

Read = list[str]
COUNT = 12


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files of kept images go."""
    monkeypatch.setenv("DNREID_CACHE", str(tmp_path / "kept images"))
    return tmp_path / "kept images"


@pytest.fixture
def items(tmp_path: Path) -> list[DomainItem]:
    """Six day and six night images of all sizes and kinds."""
    rng = np.random.default_rng(0)
    names = ["plain.png", 'a b\'s "c".jpg', "naïve <script>.jpg", "cmyk.jpg", "palette.png", "exif.jpg"]
    found = []
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (7 + 3 * number, 40 - 2 * number, 3), dtype=np.uint8)
        image, options = Image.fromarray(pixels), {}
        name = names[number] if number < len(names) else f"line\nbreak {number}.png"
        if name.startswith("cmyk"):
            image = image.convert("CMYK")
        elif name.startswith("palette"):
            image = image.quantize(16)
        elif name.startswith("exif"):
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = 6
        elif number == COUNT - 1:
            image = Image.fromarray(rng.integers(0, 65536, pixels.shape[:2], dtype=np.uint16))
        image.save(tmp_path / name, **options)
        found.append(DomainItem(str(tmp_path / name), number % 3, number // 6, number // 6))
    return found


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """The files that were decoded, in this process."""
    paths: Read = []
    original = store.read_image

    def reading(path: str) -> Image.Image:
        paths.append(path)
        return original(path)

    monkeypatch.setattr(store, "read_image", reading)
    return paths


def config(mode: str, *, workers: int = 0, steps: bool = True, **views: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN, cfg.INPUT.SIZE_TEST = [16, 12], [16, 12]
    for switch in ("FLIP", "PADDING", "CJ", *(("REA", "RPT", "CHANNEL_AUG") if steps else ())):
        cfg.INPUT[switch].ENABLED = True
    cfg.INPUT.VIEWS.update(views)
    cfg.DATALOADER.NUM_WORKERS, cfg.TEST.IMS_PER_BATCH, cfg.DATALOADER.CACHE = workers, 5, mode
    return cfg


def opened(cfg: CfgNode, items: list[DomainItem]) -> PixelStore | None:
    return open_pixels(cfg, items, build_domain_transform(cfg, is_train=False))[0]


def epochs(
    cfg: CfgNode, items: list[DomainItem], *, between: Callable[[], object] = lambda: None
) -> list[Any]:
    """Two epochs of training batches and of all images, ``between`` them something happens."""
    train_transform, test = (build_domain_transform(cfg, is_train=is_train) for is_train in (True, False))
    train_pixels, test_pixels = open_pixels(cfg, items, train_transform, test)
    data = DomainDataset(items, None)  # type: ignore[arg-type]
    views = tuple(len(train_transform.of(domain)) for domain in Domain)
    sampler = CrossDomainIdentitySampler(
        data.true_ids, data.domains, num_clusters=2, num_instances=2, iterations=3, views=views
    )
    loaders = [
        build_train_loader(cfg, items, sampler, transform=train_transform, pixels=train_pixels),
        build_inference_loader(cfg, items, test, pixels=test_pixels),
    ]
    found = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        found += [
            on_device(batch, torch.device("cpu")) for loader in loaders[:: 1 - 2 * epoch] for batch in loader
        ]
        if epoch == 0:
            between()
    return found


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            assert torch.equal(one[key], value) if isinstance(value, torch.Tensor) else one[key] == value
        assert one["images"].dtype == torch.float32 and one["images"].is_contiguous()


# ------------------------------------------------------------------ the same bits


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("steps", [True, False])
def test_batches_of_two_epochs_are_those_of_the_files(
    items: list[DomainItem], folder: Path, workers: int, steps: bool
) -> None:
    """After the first epoch the files are gone: what is in memory is all that there is."""
    views = {"DAY": ((), ("exchange",)), "NIGHT": (("channel_or_grey",), ("exchange", "grey_or_channel"))}
    expected = epochs(config("off", steps=steps, **views), items)
    assert_same(epochs(config("disk", workers=workers, steps=steps, **views), items), expected)
    cut = lambda: [os.unlink(item.path) for item in items]  # noqa: E731
    assert_same(epochs(config("ram", workers=workers, steps=steps, **views), items, between=cut), expected)


@pytest.mark.parametrize("value", [[123.675, 116.28, 103.53], [7.25]])
@pytest.mark.parametrize("padding", [0, 1, 10, 40])
def test_cut_and_erased_as_torchvision_does(
    items: list[DomainItem], padding: int, value: list[float]
) -> None:
    """Float images of fast-reid's own steps, one by one; here they are cut as arrays and erased in the batch."""
    cfg = config("ram", steps=False)
    cfg.INPUT.CJ.ENABLED, cfg.INPUT.PADDING.SIZE = False, padding
    cfg.INPUT.REA.ENABLED, cfg.INPUT.REA.PROB, cfg.INPUT.REA.VALUE = True, 0.8, value
    plain, transform = build_transforms(cfg), build_domain_transform(cfg, is_train=True)
    (pixels,) = open_pixels(cfg, items, transform)
    erased = 0
    for data in (DomainDataset(items, transform, pixels=pixels), DomainDataset(items, transform)):
        keys = [(place % COUNT, place) for place in range(5 * COUNT)]
        batch = on_device(collate(data.__getitems__(keys)), torch.device("cpu"))
        assert "erased" not in batch and batch["images"].dtype == torch.float32
        for (index, seed), image in zip(keys, batch["images"], strict=True):
            seed_generators(seed)
            expected = plain(read_image(items[index].path))
            assert torch.equal(image, expected)
            erased += int((expected == value[0]).any())
    assert 2 * COUNT < erased < 10 * COUNT


def test_a_rectangle_that_is_not_found_erases_nothing(items: list[DomainItem]) -> None:
    """torchvision draws ten rectangles and gives up; so does this, with the same draws."""
    erasing = T.RandomErasing(p=1.0, scale=(0.98, 1.0), ratio=(3.0, 3.3), value=[1.5, 2.5, 3.5])
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    image, box = ErasedBytes(erasing)(pixels)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(erasing(ToPixels()(pixels)), image.float()) and box.tolist() == [0.0] * 7
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("step", VIEW_STEPS)
def test_a_view_of_a_kept_image_is_the_view_of_the_file(
    items: list[DomainItem], step: str, read: Read
) -> None:
    cfg = config("ram", steps=False, DAY=((step,),), NIGHT=((), (step, step)))
    transform = build_domain_transform(cfg, is_train=True)
    (pixels,) = open_pixels(cfg, items, transform)
    kept, plain = (DomainDataset(items, transform, pixels=one) for one in (pixels, None))
    for turn in range(2):
        for index, seed in itertools.product(range(COUNT), range(8)):
            key = (index, seed, int(index >= 6 and seed % 2))
            assert torch.equal(kept[key]["images"], plain[key]["images"])
        assert len(read) == COUNT, turn


def test_what_comes_before_the_resize_is_not_skipped(items: list[DomainItem], folder: Path) -> None:
    """Named policy: a pipeline that begins with something else is read from the files; the other one is kept."""
    cfg = config("ram")
    cfg.INPUT.AUTOAUG.ENABLED, cfg.INPUT.AUTOAUG.PROB = True, 0.5
    expected = epochs(config("off"), items)
    train_pixels, test_pixels = open_pixels(
        cfg, items, *(build_domain_transform(cfg, is_train=is_train) for is_train in (True, False))
    )
    assert train_pixels is None and test_pixels is not None
    off = cfg.clone()
    off.DATALOADER.CACHE = "off"
    found = epochs(off, items)
    assert_same(epochs(cfg, items), found)
    assert not torch.equal(found[0]["images"], expected[0]["images"])


@pytest.mark.parametrize("size", [[16], [0, 0]])
def test_images_of_different_sizes_are_not_kept(items: list[DomainItem], size: list[int]) -> None:
    cfg = config("ram")
    cfg.INPUT.SIZE_TEST = size
    assert opened(cfg, items) is None and opened(config("ram"), []) is None


def test_training_and_test_share_what_is_of_one_size(items: list[DomainItem]) -> None:
    cfg = config("ram")
    pair = lambda: open_pixels(cfg, items, *(build_domain_transform(cfg, is_train=t) for t in (True, False)))  # noqa: E731
    one, other = pair()
    assert one is other is not None
    cfg.INPUT.SIZE_TEST = [12, 16]
    one, other = pair()
    assert one is not other and one is not None and other is not None
    assert other.layout.shape == (COUNT, 12, 16, 3) and one.layout.shape == (COUNT, 16, 12, 4)


def test_an_image_travels_as_bytes_unless_floats_are_drawn_into_it(items: list[DomainItem]) -> None:
    for steps, dtype in ((False, torch.uint8), (True, torch.float32)):
        transform = build_domain_transform(config("off", steps=steps), is_train=True)
        assert DomainDataset(items, transform)[3]["images"].dtype == dtype
    batch = next(iter(build_inference_loader(config("off"), items)))
    assert batch["images"].dtype == torch.uint8
    assert (
        on_device({"images": batch["images"], "n": 3}, torch.device("cpu"))["images"].dtype == torch.float32
    )


def test_a_damaged_image_is_the_same_sentence_every_time(items: list[DomainItem]) -> None:
    Path(items[4].path).write_bytes(b"broken")
    transform = build_domain_transform(config("ram"), is_train=False)
    data = DomainDataset(items, transform, pixels=opened(config("ram"), items))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"palette\.png' cannot be read"):
            data[4]
    assert data.pixels is not None and not data.pixels.complete


# ------------------------------------------------------------------ whole runs


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_a_run_has_the_same_weights_and_decodes_each_file_once(
    tiny_cfg: CfgNode, folder: Path, read: Read, mode: str
) -> None:
    tiny_cfg.MODEL.LOSSES.NAME = ["ClusterNCE", "MAA"]
    tiny_cfg.DATALOADER.CACHE, tiny_cfg.OUTPUT_DIR = "off", f"{tiny_cfg.OUTPUT_DIR}-off"
    expected = train(tiny_cfg)
    assert read == []
    tiny_cfg.DATALOADER.CACHE, tiny_cfg.OUTPUT_DIR = mode, tiny_cfg.OUTPUT_DIR.replace("-off", mode)
    found = train(tiny_cfg)
    assert same(weights(found), weights(expected))
    assert found._last_eval_results == expected._last_eval_results
    images = {item[0] for item in found.train_data.items}  # type: ignore[union-attr]
    assert len(read) == len(set(read)) > len(images) and images < set(read)
    assert len(list(folder.glob("*"))) == (2 if mode == "disk" else 0)
    if mode == "disk":  # the next run decodes nothing
        tiny_cfg.OUTPUT_DIR += "-again"
        again = train(tiny_cfg)
        assert same(weights(again), weights(expected)) and len(read) == len(set(read))


def test_memory_is_for_images_that_are_read_again(
    tiny_cfg: CfgNode, items: list[DomainItem], read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One evaluation by itself keeps nothing; those of a run share what the first one has read."""
    monkeypatch.setattr("dnreid_plugins.evaluation.evaluator.score_protocol", lambda *_, **__: {})

    class Images:
        query, gallery = items[:6], items[6:]

    class Mean(torch.nn.Module):
        def forward(self, batch: dict[str, Any]) -> torch.Tensor:
            return batch["images"].mean(dim=(2, 3))

    evaluate(Mean(), Images(), config("ram"))
    assert read == []
    with kept_pixels():
        for _ in range(3):
            evaluate(Mean(), Images(), config("ram"))
        assert sorted(read) == sorted(item.path for item in items)
        Image.new("RGB", (9, 9)).save(items[0].path)
        evaluate(Mean(), Images(), config("ram"))
        assert len(read) == 2 * COUNT


# ------------------------------------------------------------------ files of kept images


def filled(cfg: CfgNode, items: list[DomainItem]) -> list[torch.Tensor]:
    """All images through the loader."""
    loader = build_inference_loader(cfg, items, pixels=opened(cfg, items))
    return [image for batch in loader for image in batch["images"].clone()]


def change_pillow(cfg: CfgNode, items: list[DomainItem], patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PIL, "__version__", "0.0")


def change_layout(cfg: CfgNode, items: list[DomainItem], patch: pytest.MonkeyPatch) -> None:
    patch.setattr(opening, "VERSION", 99)


def change_size(cfg: CfgNode, items: list[DomainItem], patch: pytest.MonkeyPatch) -> None:
    cfg.INPUT.SIZE_TEST = [12, 16]


def change_order(cfg: CfgNode, items: list[DomainItem], patch: pytest.MonkeyPatch) -> None:
    items.reverse()


def change_file(cfg: CfgNode, items: list[DomainItem], patch: pytest.MonkeyPatch) -> None:
    """Another image of as many bytes, as a restored backup may have."""
    path = Path(items[0].path)
    image = Image.open(path)
    image.load()
    size, time = path.stat().st_size, path.stat().st_mtime_ns
    image.transpose(Image.Transpose.ROTATE_180).save(path)
    path.write_bytes(path.read_bytes().ljust(size, b"\0")[:size])
    os.utime(path, ns=(time + 1, time + 1))


CHANGES = [change_pillow, change_layout, change_size, change_order, change_file]


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_of_something_else_is_made_anew(
    items: list[DomainItem], folder: Path, read: Read, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    cfg = config("disk")
    filled(cfg, items)
    filled(cfg, items)
    assert len(read) == COUNT
    change(cfg, items, monkeypatch)
    off = cfg.clone()
    off.DATALOADER.CACHE = "off"
    expected = filled(off, items)
    assert all(itertools.starmap(torch.equal, zip(filled(cfg, items), expected, strict=True)))
    assert len(read) == 2 * COUNT
    filled(cfg, items)
    assert len(read) == 2 * COUNT


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_file_is_made_anew(
    items: list[DomainItem], folder: Path, read: Read, damage: bytes | None
) -> None:
    expected = filled(config("disk"), items)
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    assert all(itertools.starmap(torch.equal, zip(filled(config("disk"), items), expected, strict=True)))
    assert len(read) == 2 * COUNT and list(folder.iterdir()) == [path]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_kill_while_it_is_written_leaves_nothing_that_counts(
    items: list[DomainItem], folder: Path, read: Read, workers: int
) -> None:
    expected = filled(config("off"), items)
    cfg = config("disk", workers=workers)
    cfg.TEST.IMS_PER_BATCH = 2

    def half() -> None:
        pixels = opened(cfg, items)
        next(iter(build_inference_loader(cfg, items, pixels=pixels)))
        assert len(list(folder.iterdir())) == 1
        os.kill(os.getpid(), signal.SIGKILL)

    child = forked(half)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert left.name.endswith(".part")
    cfg.DATALOADER.NUM_WORKERS = 0
    assert all(itertools.starmap(torch.equal, zip(filled(cfg, items), expected, strict=True)))
    assert len(read) == COUNT
    assert [path.suffix for path in folder.iterdir() if path != left] == [".pixels"]


def test_processes_that_make_the_same_file_at_once(items: list[DomainItem], folder: Path, read: Read) -> None:
    expected = filled(config("off"), items)
    children = [forked(lambda: [filled(config("disk"), items) for _ in range(3)]) for _ in range(4)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    (path,) = folder.iterdir()
    assert path.suffix == ".pixels"
    assert all(itertools.starmap(torch.equal, zip(filled(config("disk"), items), expected, strict=True)))
    assert read == []


def test_a_run_that_does_not_see_every_image_leaves_no_file(items: list[DomainItem], folder: Path) -> None:
    pixels = opened(config("disk"), items)
    loader = build_inference_loader(config("disk"), items, pixels=pixels)
    next(iter(loader))
    assert len(list(folder.iterdir())) == 1
    del pixels, loader
    assert list(folder.iterdir()) == []


# ------------------------------------------------------------------ where nothing can be kept


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file can have more than 9000 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_a_full_disk_is_one_sentence(
    items: list[DomainItem], folder: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = filled(config("off"), items)
    assert all(itertools.starmap(torch.equal, zip(filled(config(mode), items), expected, strict=True)))
    (sentence,) = said(caplog)
    assert sentence.startswith(
        f"DATALOADER.CACHE {mode}: 0.0 GiB of resized images cannot be kept (File too large)"
    )
    assert list(folder.glob("*")) == []


def test_a_disk_that_becomes_full_on_the_way(
    items: list[DomainItem], folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = filled(config("off"), items)
    pixels = opened(config("disk"), items)
    write, left = os.pwrite, [7]

    def full(*args: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return write(*args)

    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(2):
        loader = build_inference_loader(config("disk"), items, pixels=pixels)
        found = [image for batch in loader for image in batch["images"]]
        assert all(itertools.starmap(torch.equal, zip(found, expected, strict=True)))
    (sentence,) = said(caplog)
    assert "no more images can be kept (No space left on device)" in sentence
    del pixels, loader
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made(
    items: list[DomainItem], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("a file")
    assert opened(config("disk"), items) is None
    assert "cannot be kept (File exists)" in said(caplog)[0] and folder.read_text() == "a file"


def test_too_little_memory_or_disk_is_said(
    items: list[DomainItem], folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(opening, "available_memory", lambda: 40_000)
    monkeypatch.setattr(opening, "SPARE_DISK", 2**60)
    assert opened(config("ram"), items) is None and opened(config("disk"), items) is None
    assert "more than a quarter of the free memory" in caplog.messages[0]
    assert "GiB left" in caplog.messages[1] and list(folder.iterdir()) == []


@pytest.mark.parametrize("folders", [{"DNREID_CACHE": "a"}, {"XDG_CACHE_HOME": "b"}, {}])
def test_where_the_files_are(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DNREID_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in folders.items():
        monkeypatch.setenv(name, value)
    expected = {"a": Path("a"), "b": Path("b/dnreid")}.get(*folders.values()) if folders else None
    assert opening.cache_folder() == (expected or Path.home() / ".cache/dnreid")


# ------------------------------------------------------------------ several processes


def test_processes_of_one_machine_share_a_store(items: list[DomainItem], read: Read) -> None:
    """What another process has opened and filled is here; a place that holds something else is refused."""
    pixels = opened(config("ram"), items)
    assert pixels is not None
    layout, place = pixels.layout, pixels.place

    def other() -> None:
        shared = opening._shared(place, layout)
        assert shared is not None and shared.place == place
        for index, item in enumerate(items):
            shared.pixels(index, item.path, lambda image: image.resize((12, 16)))

    os.waitpid(forked(other), 0)
    assert pixels.complete and read == []
    assert opening._shared("/proc/self/fd/99999", layout) is None
    assert opening._shared(items[0].path, layout) is None


def test_a_worker_with_a_fresh_interpreter_gets_the_open_file(
    items: list[DomainItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`DupFd` hands over a descriptor while a process is started; here it is a copy of it."""

    class Handed:
        def __init__(self, descriptor: int) -> None:
            self.descriptor = descriptor

        def detach(self) -> int:
            return os.dup(self.descriptor)

    monkeypatch.setattr(reduction, "DupFd", Handed)
    pixels = opened(config("ram"), items)
    assert pixels is not None
    monkeypatch.setitem(globals(), "Handed", Handed)
    Handed.__qualname__ = "Handed"
    copy = pickle.loads(pickle.dumps(pixels))
    first = copy.pixels(0, items[0].path, lambda image: image.resize((12, 16)))
    assert np.array_equal(pixels.pixels(0, "nowhere", lambda image: image), first)
    assert copy.place == pixels.place
