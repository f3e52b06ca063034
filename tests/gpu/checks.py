"""What is tried on a GPU: each check is a function of a device that raises, or returns figures.

On the device "cpu" a check compares the CPU with itself, which tries its own logic; ``small`` sizes fit a test.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import functional_cases  # noqa: E402
import run_helpers  # noqa: E402
import tiny_run  # noqa: E402
from fastreid.config import get_cfg  # noqa: E402
from fastreid.evaluation.rank import evaluate_rank  # noqa: E402
from fastreid.modeling.meta_arch import build_model  # noqa: E402
from fastreid.utils.compute_dist import build_dist  # noqa: E402
from synthetic import clustered, query_and_gallery  # noqa: E402

from dnreid_plugins.engine.solver import build_optimizer  # noqa: E402
from dnreid_plugins.engine.step import StepTrainer, amp_dtype  # noqa: E402
from dnreid_plugins.functional.neighbours.clustering import jaccard_dbscan  # noqa: E402
from dnreid_plugins.functional.neighbours.knn import knn_across, knn_table  # noqa: E402
from dnreid_plugins.functional.ranking.metrics import rank_metrics  # noqa: E402
from dnreid_plugins.functional.types import Clusters, Epoch  # noqa: E402
from dnreid_plugins.modeling.clip.prompts import build_prompt_learner  # noqa: E402
from dnreid_plugins.modeling.clip.text_tower import build_text_tower  # noqa: E402

Figures = dict[str, Any]
#: System -> (config of the tests, further options).
SYSTEMS: dict[str, list[Any]] = {
    "Base": [],
    "CIA": ["MODEL.LOSSES.NAME", ("ClusterNCE", "MAA", "DGM"), "MODEL.LOSSES.DGM.WEIGHT", [[1, 0.3]]],
    "Bridging": ["tiny_bridging.yml", "PROMPT_STAGE.EPOCHS", 1],
}
#: Largest difference of the losses of the first step from those of the CPU in float32, relative to 1 + loss.
NUMBERS = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 1e-1}


class Check(NamedTuple):
    """``run(device, small=...)``; stopped after ``limit`` seconds."""

    run: Callable[..., Figures]
    limit: float


def need(fact: bool, what: str) -> None:
    """Raise with ``what`` unless ``fact``; unlike an assert also under ``python -O``."""
    if not fact:
        raise AssertionError(what)


# ------------------------------------------------------------------------------------ the functions


def leaves_of(found: Any) -> Iterator[Any]:
    """Tensors, arrays and numbers in a result, in a fixed order."""
    if dataclasses.is_dataclass(found):
        found = [getattr(found, field.name) for field in dataclasses.fields(found)]
    if isinstance(found, dict):
        found = [found[key] for key in sorted(found)]
    if isinstance(found, (list, tuple)):
        for one in found:
            yield from leaves_of(one)
    elif found is not None:
        yield found


def answer(case: Callable[[Any], Any], device: str, *, half: bool = False) -> list[Tensor]:
    """All that a case gives, then the gradients of its leaves, on the CPU; ``half``: computed inside autocast."""
    world = functional_cases.World(device)
    _ = world.similarity  # an input, so never in half precision
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=half):
        found = [torch.as_tensor(one) for one in leaves_of(case(world))]
    carrying = [one for one in found if one.requires_grad]
    if carrying:
        torch.stack([one.double().sum() for one in carrying]).sum().backward()
    gradients = [leaf.grad for leaf in world.leaves if leaf.grad is not None]
    return [one.detach().cpu() for one in (*found, *gradients)]


def functional_parity(device: str, *, small: bool = False) -> Figures:
    """Every case gives on the device what it gives on the CPU, gradients included."""
    worst, wrong = {}, []
    for name, case in functional_cases.CASES.items():
        try:
            pairs = list(zip(answer(case, "cpu"), answer(case, device), strict=True))
            for expected, got in pairs:
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
            floats = [(a, b) for a, b in pairs if a.is_floating_point() and a.numel() > 0]
            worst[name] = max([float((a - b).abs().nan_to_num().max()) for a, b in floats], default=0.0)
        except Exception as error:  # one broken function must not hide the next
            wrong.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    need(not wrong, f"{len(wrong)} of {len(functional_cases.CASES)} differ: {'; '.join(wrong)}")
    return {"functions": len(worst), "largest difference": max(worst.values())}


# ------------------------------------------------------------------------------------ small runs


@contextmanager
def tiny_world() -> Iterator[Path]:
    """A folder with the tests' tiny DN-348 as the data sets, forgotten afterwards."""
    before = os.environ.get("FASTREID_DATASETS")
    with tempfile.TemporaryDirectory() as folder:
        tiny_run.register_tiny_backbone().write_tiny_dn348(Path(folder))
        os.environ["FASTREID_DATASETS"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("FASTREID_DATASETS", None)
            os.environ.update({} if before is None else {"FASTREID_DATASETS": before})


def config(folder: Path, name: str, device: str, opts: list[Any]) -> Any:
    """A tiny config with its run in ``folder / name``."""
    return tiny_run.tiny_config([*opts, "MODEL.DEVICE", device, "OUTPUT_DIR", str(folder / name)])


def losses_of_run(cfg: Any) -> list[dict[str, Tensor]]:
    """Train to the end; the losses of every step."""
    trainer, seen = run_helpers.CrossDomainTrainer(cfg), run_helpers.SeenLosses()
    trainer.register_hooks([seen])
    trainer.resume_or_load()
    trainer.train()
    return [{name: loss.float().cpu() for name, loss in step.items()} for step in seen.losses]


def training_steps(device: str, *, system: str, small: bool = False) -> Figures:
    """Runs in every number format: finite losses, the first step's like those of the CPU in float32."""
    figures: Figures = {}
    with tiny_world() as folder:
        start = losses_of_run(config(folder, "cpu", "cpu", SYSTEMS[system]))[0]
        for number, allowed in NUMBERS.items():
            amp = [] if number == "float32" else ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", number]
            steps = losses_of_run(config(folder, number, device, [*SYSTEMS[system], *amp]))
            every = torch.stack([loss for step in steps for loss in step.values()])
            need(bool(torch.isfinite(every).all()), f"{number}: a loss is not finite")
            need(steps[0].keys() == start.keys(), f"{number}: losses {list(steps[0])}, not {list(start)}")
            gaps = {key: float((steps[0][key] - start[key]).abs() / (1 + start[key].abs())) for key in start}
            figures[f"{number}: largest difference"] = max(gaps.values())
            need(max(gaps.values()) <= allowed, f"{number}: the first losses differ by {gaps}")
    return figures


def deterministic_twice(device: str, *, small: bool = False) -> Figures:
    """Two runs with DETERMINISTIC end with equal weights, bit for bit."""
    with tiny_world() as folder:
        runs = [
            run_helpers.weights(
                run_helpers.train(config(folder, name, device, [*SYSTEMS["CIA"], "DETERMINISTIC", True]))
            )
            for name in ("first", "second")
        ]
    different = [key for key in runs[0] if not torch.equal(runs[0][key], runs[1][key])]
    need(not different, f"{len(different)} of {len(runs[0])} tensors differ, e.g. {different[:3]}")
    return {"tensors": len(runs[0])}


def checkpoints_change_device(device: str, *, small: bool = False) -> Figures:
    """A run that begins on the CPU goes on on the device, and the other way round, where it was cut."""
    with tiny_world() as folder:
        for name, first, second in (("to", "cpu", device), ("back", device, "cpu")):
            cfg = config(folder, name, first, ["SOLVER.CHECKPOINT_MINUTES", 1e-9])
            cut = run_helpers.CrossDomainTrainer(cfg)
            cut.resume_or_load()
            run_helpers.stop_at(cut, 5)
            with suppress(run_helpers.StoppedError):
                cut.train()
            saved = run_helpers.weights(cut)
            resumed = run_helpers.CrossDomainTrainer(config(folder, name, second, []))
            resumed.resume_or_load(resume=True)
            need(resumed.iter == 5, f"{first} to {second}: resumed at iteration {resumed.iter}, cut at 5")
            for key, value in run_helpers.weights(resumed).items():
                need(torch.equal(value.cpu(), saved[key].cpu()), f"{first} to {second}: {key} differs")
            resumed.train()
            need(resumed.iter == resumed.max_iter, f"{first} to {second}: ended at {resumed.iter}")
    return {"cut at": 5}


JOB = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
import run_helpers, tiny_run
from dnreid_plugins.runtime.group import joined
from dnreid_plugins.runtime.launch import torchrun_member

_, _, device, folder, file = sys.argv
with joined(torchrun_member(), device=device):
    trainer = run_helpers.train(tiny_run.tiny_config(["MODEL.DEVICE", device, "OUTPUT_DIR", folder]))
    if torch.distributed.get_rank() == 0:
        print("backend", torch.distributed.get_backend())
        torch.save(run_helpers.weights(trainer), file)
"""


def process_group(device: str, *, processes: int = 1, small: bool = False) -> Figures:
    """A run in a process group, NCCL on a GPU, gives the weights of a run without one, up to rounding."""
    if device == "cuda" and torch.cuda.device_count() < processes:
        return {"left out": f"{torch.cuda.device_count()} GPUs, {processes} are needed"}
    with tiny_world() as folder:
        alone = run_helpers.weights(run_helpers.train(config(folder, "alone", device, [])))
        (folder / "job.py").write_text(JOB)
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(processes),
        ]
        command += [str(folder / "job.py"), str(ROOT / "tests"), device, str(folder / "group")]
        done = subprocess.run(
            [*command, str(folder / "weights.pth")], capture_output=True, text=True, check=False, timeout=300
        )
        need(done.returncode == 0, f"the job ended with {done.returncode}: {done.stderr[-600:]}")
        backend = done.stdout.partition("backend ")[2].split()[0]
        together = torch.load(folder / "weights.pth", map_location="cpu", weights_only=True)
    gaps = {
        key: float((value.cpu().float() - together[key].float()).abs().max())
        for key, value in alone.items()
        if value.numel() and value.shape == together[key].shape
    }
    need(alone.keys() == together.keys(), "the two runs have other tensors")
    need(backend == ("nccl" if device == "cuda" else "gloo"), f"the group's backend is {backend}")
    need(max(gaps.values()) < 1e-2, f"weights differ by up to {max(gaps.values()):.2g}")
    return {"backend": backend, "largest difference": max(gaps.values())}


# ------------------------------------------------------------------------------------ sizes of the papers


class Stopwatch:
    """Seconds and the peak of the device's memory, with everything asked of the device done."""

    def __init__(self, device: str) -> None:
        self.cuda = torch.device(device).type == "cuda"

    def __call__(self, work: Callable[[], Any]) -> tuple[float, float | None, Any]:
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        start = time.perf_counter()
        found = work()
        if self.cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        return seconds, torch.cuda.max_memory_allocated() / 2**30 if self.cuda else None, found


#: The papers' configs, and of what size a test takes them.
FULL = {
    "Base": ("CIA/configs/dn348.yml", ["MODEL.LOSSES.NAME", ("ClusterNCE",)]),
    "CIA": ("CIA/configs/dn348.yml", ["MODEL.LOSSES.DGM.WEIGHT", [[1, 0.3]]]),
    "Bridging": ("BridgingDayNight/configs/dn348.yml", []),
}


def random_epoch(num: int, images: int, dim: int) -> Epoch:
    """``num`` random clusters per domain of ``images`` images each, in canonical order."""
    centres = nn.functional.normalize(torch.randn(num, dim), dim=1)
    parts = []
    for domain in range(2):
        labels = torch.arange(num).repeat_interleave(images)
        centroids = nn.functional.normalize(centres + 0.02 * torch.randn(num, dim), dim=1)
        indices = len(labels) * domain + torch.arange(len(labels))
        parts.append(Clusters(labels, centroids[labels], centroids, indices))
    return Epoch.of(parts[0], parts[1], 1, 100)


def full_size_steps(device: str, *, system: str, small: bool = False) -> Figures:
    """Seconds and memory of a training step of the paper's config at its batch, on random weights."""
    path, opts = FULL[system]
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "projects" / path))
    cfg.merge_from_list([*opts, "MODEL.DEVICE", device, "MODEL.BACKBONE.PRETRAIN", False])
    num, repeats = 200, 10
    if small:
        tiny = ["MODEL.BACKBONE.CLIP.MODEL", "miniclip", "MODEL.BACKBONE.FEAT_DIM", 192]
        tiny = (
            tiny if system == "Bridging" else ["MODEL.BACKBONE.DEPTH", "18x", "MODEL.BACKBONE.FEAT_DIM", 512]
        )
        cfg.merge_from_list([*tiny, "SOLVER.IMS_PER_BATCH", 16, "INPUT.SIZE_TRAIN", [32, 32]])
        cfg.INPUT.SIZE_TEST = [32, 32]
        num, repeats = 16, 1
    torch.manual_seed(0)
    model: Any = build_model(cfg).to(device).train()
    batch, images = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    epoch = random_epoch(num, images, cfg.MODEL.BACKBONE.FEAT_DIM)
    if "ImageText" in model.parts.losses:
        text = build_text_tower(cfg)
        prompts = build_prompt_learner(cfg, text, torch.arange(2).repeat_interleave(num * images))
        model.parts.losses["ImageText"].prepare(prompts.to(device), text.to(device))
    model.parts.begin_epoch(epoch)
    half = torch.arange(batch // 2)
    data = {
        "images": torch.rand(batch, 3, *cfg.INPUT.SIZE_TRAIN) * 255,
        "targets": (half // images).repeat(2),
        "domains": torch.arange(2).repeat_interleave(batch // 2),
        "indices": torch.cat([half, num * images + half]),
    }
    trainer = StepTrainer(model, [data] * 100, build_optimizer(cfg, model), amp_dtype=amp_dtype(cfg))
    trainer._write_metrics = lambda losses, seconds: None  # type: ignore[method-assign]

    def step() -> None:
        trainer.run_step()
        model.parts.after_step(model.last_batch)

    watch = Stopwatch(device)
    first, memory, _ = watch(step)
    times = [watch(step)[0] for _ in range(repeats)]
    amp = "float32" if trainer.amp_dtype is None else str(trainer.amp_dtype).removeprefix("torch.")
    return {
        "images": batch,
        "numbers": amp,
        "first step s": first,
        "step s": sorted(times)[len(times) // 2],
        "peak GiB": memory,
    }


def labels_as_on_the_cpu(device: str, *, small: bool = False) -> Figures:
    """Neighbours and pseudo labels of the device are those of the CPU."""
    rows = clustered(600 if small else 6000, 256)
    here, there = knn_table(rows, 30), knn_table(rows.to(device), 30)
    different = float((here.indices != there.indices).mean())
    labels = [jaccard_dbscan(one, eps=0.6) for one in (rows, rows.to(device))]
    need(different <= 1e-3, f"{100 * different:.2f} % of the neighbours differ")
    wrong = int((np.asarray(labels[0]) != np.asarray(labels[1])).sum())
    need(wrong <= 1e-3 * len(rows), f"{wrong} labels differ")
    return {"images": len(rows), "neighbours that differ": different, "labels that differ": wrong}


def label_phase(device: str, *, small: bool = False) -> Figures:
    """Pseudo labels of the day images of DN-Wild, in number and width, from synthetic features."""
    rows = clustered(500 if small else 70_981, 128 if small else 2048).to(device)
    knn_table(rows[:500], 30)
    watch = Stopwatch(device)
    search, memory, table = watch(lambda: knn_table(rows, 30))
    rest, _, labels = watch(lambda: jaccard_dbscan(rows, eps=0.6, knn=table))
    found = int(np.max(labels)) + 1
    need(found > 3, f"only {found} clusters")
    return {
        "images": len(rows),
        "search s": search,
        "after it, on the CPU, s": rest,
        "peak GiB": memory,
        "clusters": found,
    }


def ranking(device: str, *, some: int = 500, small: bool = False) -> Figures:
    """DN-Wild's queries against its gallery; fast-reid's own path on the same device for some of the queries."""
    queries, gallery, some = (60, 200, 30) if small else (14_964, 19_568, some)
    q, g, ids, others = query_and_gallery(queries, gallery, 2048, identities=30 if small else 686)
    q, g = q.to(device), g.to(device)
    watch = Stopwatch(device)
    rank_metrics(q[:10], g, ids[:10], others)
    whole, memory, _ = watch(lambda: rank_metrics(q, g, ids, others))
    part, _, ours = watch(lambda: rank_metrics(q[:some], g, ids[:some], others))

    def fastreid() -> Any:
        distances = build_dist(q[:some], g, metric="cosine")
        cameras = np.zeros(some), np.ones(gallery)
        return evaluate_rank(distances, ids[:some].numpy(), others.numpy(), *cameras, use_cython=False)

    theirs, _, (_, precisions, _) = watch(fastreid)
    gap = abs(float(np.mean(precisions)) * 100 - ours["mAP"])
    need(gap <= 1e-2, f"mAP differs from fast-reid's by {gap}")
    figures = {"queries x gallery": f"{queries} x {gallery}", "all s": whole, "peak GiB": memory}
    return {**figures, f"{some} queries s": part, "fast-reid s": theirs, "fast-reid / ours": theirs / part}


def million_images(device: str, *, small: bool = False) -> Figures:
    """The exact nearest images of some queries in a gallery of a million, against sums in float64."""
    count = 2_000 if small else 1_000_000
    rows = clustered(count, 64 if small else 256).to(device)
    asking = rows[:: max(count // 1000, 1)][:1000]
    watch = Stopwatch(device)
    seconds, memory, found = watch(lambda: knn_across(asking, rows, 10, block=256))
    checked = 20
    exact = torch.cat(
        [
            torch.cat([(part.double() - one.double()).square().sum(dim=1) for part in rows.split(100_000)])[
                None
            ]
            for one in asking[:checked]
        ]
    )
    nearest = exact.topk(10, largest=False).values.cpu()
    got = torch.from_numpy(found.distances[:checked]).double()
    gap = float((got - nearest).abs().max())
    need(gap <= 1e-5, f"a distance differs by {gap}")
    return {
        "gallery": count,
        "queries": len(asking),
        "s": seconds,
        "peak GiB": memory,
        "largest difference": gap,
    }


def _of(check: Callable[..., Figures], **chosen: Any) -> Callable[..., Figures]:
    return functools.partial(check, **chosen)


def about(check: Check) -> str:
    """The first sentence of its docstring."""
    return (getattr(check.run, "func", check.run).__doc__ or "").partition("\n")[0]


#: In the order of their importance.
CHECKS: dict[str, Check] = {
    "every function of the room functional": Check(functional_parity, 90),
    **{f"training steps, {name}": Check(_of(training_steps, system=name), 90) for name in SYSTEMS},
    "labels as on the CPU": Check(labels_as_on_the_cpu, 60),
    "DETERMINISTIC twice": Check(deterministic_twice, 60),
    "checkpoints change the device": Check(checkpoints_change_device, 60),
    "process group of one": Check(_of(process_group, processes=1), 90),
    **{f"full size, {name}": Check(_of(full_size_steps, system=name), 90) for name in FULL},
    "ranking at DN-Wild's size": Check(ranking, 90),
    "label phase at DN-Wild's size": Check(label_phase, 120),
    "a million images, exact": Check(million_images, 90),
    "process group of two": Check(_of(process_group, processes=2), 90),
}
