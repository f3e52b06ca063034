"""What the processes of the distributed tests do; they find these functions by name."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import tiny_config

# isort: split
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.gather import check_composition, gather_batch
from dnreid_plugins.modeling.sync_bn import SyncBatchNorm
from dnreid_plugins.runtime.agreement import any_process, computed_once, portable
from dnreid_plugins.runtime.group import Member, joined

#: Batches that 1, 2 and 3 processes can share, and every loss head of CIA from the first epoch on. The first step
#: agrees to 5e-7; what follows spreads that rounding, Adam most (it makes a full step of a gradient that is rounding
#: only), so this is SGD at a low rate: 4e-6 after twenty steps, in which the losses change by 1 to 2.
OPTIONS: list[Any] = ["SOLVER.IMS_PER_BATCH", 24, "TEST.IMS_PER_BATCH", 33, "DATALOADER.ITERS_PER_EPOCH", 10]
OPTIONS += ["SOLVER.OPT", "SGD", "SOLVER.BASE_LR", 0.0005]
OPTIONS += ["MODEL.LOSSES.NAME", ["ClusterNCE", "MAA", "DGM"], "MODEL.LOSSES.DGM.WEIGHT", [[1, 0.3]]]


class Recorder(HookBase):
    """Losses and prototypes after every step, pseudo labels of every epoch."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.rows: list[list[torch.Tensor]] = []
        self.labels: list[torch.Tensor] = []

    def losses_ready(self, losses: dict[str, torch.Tensor]) -> None:
        self.losses.append({k: v.item() for k, v in losses.items()})

    def after_step(self) -> None:
        memory = self.trainer.bare_model.parts.memory
        self.rows.append([memory.rows(d).clone() for d in (0, 1)])

    def after_epoch(self) -> None:
        self.labels.append(self.trainer.step_trainer.pseudo_labels.clone())


def train(opts: list[Any], resume: bool = False) -> dict[str, Any]:
    """Train the tiny config; everything a comparison needs."""
    trainer = CrossDomainTrainer(tiny_config(opts))
    recorder = Recorder()
    trainer.register_hooks([recorder])
    trainer.resume_or_load(resume=resume)
    results = trainer.train()
    return {
        "losses": recorder.losses,
        "rows": recorder.rows,
        "labels": recorder.labels,
        "results": results,
        "weights": {k: v.clone() for k, v in trainer.bare_model.state_dict().items()},
    }


def train_apart(opts: list[Any], apart: list[Any], root: str) -> dict[str, Any]:
    """Rank 1 is started otherwise: with options of its own, and a folder of data sets unless that is ""."""
    if comm.get_rank() != 1:
        return train(opts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", root or os.environ["FASTREID_DATASETS"])
        return train([*opts, *apart])


def shortfalls(alone: dict[str, Any], every: list[Any]) -> list[str]:
    """What of the answers of several processes to `train` is not as that of one, or not equal in all of them."""
    found = []
    for rank, one in enumerate(every):
        if isinstance(one, BaseException):
            found.append(f"rank {rank}: {type(one).__name__} {one}")
            continue
        losses = max(_difference(a, b) for a, b in zip(alone["losses"], one["losses"], strict=True))
        rows = max(
            float((a - b).abs().max()) if a.shape == b.shape else float("inf")
            for a, b in zip(_flat(alone["rows"]), _flat(one["rows"]), strict=True)
        )
        first = every[0]
        equal = {
            "pseudo labels": _equal(alone["labels"], one["labels"]),
            f"losses, by {losses:.2g}": losses <= 1e-5,
            f"prototypes, by {rows:.2g}": rows <= 1e-4,
            "metrics": one["results"] == alone["results"],
            "losses of rank 0": one["losses"] == first["losses"],
            "prototypes of rank 0": _equal(_flat(first["rows"]), _flat(one["rows"])),
            "weights of rank 0": _equal(first["weights"].values(), one["weights"].values()),
        }
        found += [f"rank {rank} differs in {name}" for name, good in equal.items() if not good]
    return found


def _difference(a: dict[str, float], b: dict[str, float]) -> float:
    return max(abs(a[key] - b[key]) for key in a) if a.keys() == b.keys() else float("inf")


def _equal(a: Iterable[torch.Tensor], b: Iterable[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _flat(steps: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    return [rows for step in steps for rows in step]


def train_until_killed(opts: list[Any], rank: int, iteration: int) -> None:
    """One process dies without a word before ``iteration``."""
    trainer = CrossDomainTrainer(tiny_config(opts))
    run_step = trainer.run_step

    def step() -> None:
        if trainer.iter == iteration and comm.get_rank() == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        run_step()

    trainer.run_step = step  # type: ignore[method-assign]
    trainer.train()


def train_until_asked(opts: list[Any], rank: int, iteration: int) -> None:
    """One process alone is asked to end, during ``iteration``."""
    trainer = CrossDomainTrainer(tiny_config(opts))
    run_step = trainer.run_step

    def step() -> None:
        run_step()
        if trainer.iter == iteration and comm.get_rank() == rank:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.run_step = step  # type: ignore[method-assign]
    trainer.train()


def disagree(opts: list[Any]) -> None:
    """Rank 1 changes a weight behind everybody's back."""
    trainer = CrossDomainTrainer(tiny_config(opts))
    with torch.no_grad():
        if comm.get_rank() == 1:
            next(trainer.bare_model.parameters()).add_(1e-6)
    trainer.train()


def normalized(x: torch.Tensor, weights: torch.Tensor, half: bool) -> dict[str, Any]:
    """Synchronised batch norm of this rank's rows of ``x`` (B, C, H, W); loss is a weighted sum of squares."""
    layer = SyncBatchNorm(x.shape[1])
    own = slice(comm.get_rank(), None, comm.get_world_size())
    inputs = x[own].clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        output = layer(inputs)
    (output.float().square() * weights[own]).sum().backward()
    return {
        "output": output.detach(),
        "input_gradient": inputs.grad,
        "weight_gradient": layer.weight.grad,
        "bias_gradient": layer.bias.grad,
        "state": layer.state_dict(),
    }


def gathered(features: torch.Tensor, domains: torch.Tensor) -> dict[str, Any]:
    """The global batch from this rank's share of ``features`` (B, D), and the gradient of a loss on it."""
    world, rank = comm.get_world_size(), comm.get_rank()
    share = torch.cat([torch.tensor_split((domains == d).nonzero().flatten(), world)[rank] for d in (0, 1)])
    own = features[share].clone().requires_grad_()
    check_composition(domains[share])
    extra = {"more": own * 3}
    cams, views = share * 100, domains[share] * 0
    batch = gather_batch(
        BatchFeatures(own, own * 2, share * 10, domains[share], share, cams, views, extra=extra)
    )
    loss = (batch.features[0] @ batch.features[-1]) + batch.pooled.prod() + batch.extra["more"].square().sum()
    loss.backward()
    return {
        "share": share,
        "gradient": own.grad / world,  # DistributedDataParallel takes the mean
        "features": batch.features.detach(),
        "pooled": batch.pooled.detach(),
        "more": batch.extra["more"].detach(),
        "targets": batch.targets,
        "domains": batch.domains,
        "indices": batch.indices,
        "cams": batch.cams,
    }


def uneven() -> None:
    check_composition(torch.tensor([0, 1, 1] if comm.get_rank() else [0, 0, 1]))


def helpers() -> dict[str, Any]:
    """The small tools of agreement."""
    rank = comm.get_rank()
    answer = {"once": computed_once(lambda: f"by rank {rank}"), "any": any_process(rank == 1, False)}
    try:
        computed_once(lambda: 1 // rank)
    except ZeroDivisionError:
        answer["error"] = "ZeroDivisionError"
    return answer


class Looped(CrossDomainTrainer):
    """Is evaluated by fast-reid's loop."""

    @classmethod
    def build_evaluator(cls, cfg: Any, dataset_name: str, output_dir: str | None = None) -> Any:
        return super().build_evaluator(cfg, dataset_name, output_dir)


def score_by_loop(opts: list[Any]) -> dict[str, Any]:
    """Figures of one untrained model."""
    cfg = tiny_config(opts)
    torch.manual_seed(0)
    return dict(Looped.test(cfg, Looped.build_model(cfg)))


def searches(opts: list[Any]) -> list[int]:
    """How many processes shared each search for neighbours of a run."""
    from dnreid_plugins.labels import clusters, joint_clusters

    counts = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (clusters, joint_clusters):
            table = module.knn_table

            def seen(*rows: Any, table: Any = table, **rest: Any) -> Any:
                counts.append(1 if rest["peers"] is None else rest["peers"].count)
                return table(*rows, **rest)

            patch.setattr(module, "knn_table", seen)
        train(opts)
    return counts


def ranks() -> list[Any]:
    """What fast-reid's own helpers say in this process, from all processes."""
    place = (comm.get_rank(), comm.get_local_rank(), comm.get_world_size(), comm.get_local_size())
    return comm.all_gather(place)


def pool_member(rank: int, pipe: Any) -> None:
    """Lives as long as the pool: joins a group of the asked size for each task and answers with its outcome."""
    while True:
        function, args, world, place = pipe.recv()
        try:
            with joined(Member(rank, world, rank, 0, place), device="cpu"):
                answer: Any = globals()[function](*args)
        except BaseException as error:
            answer = portable(error)
        pipe.send_bytes(pickle.dumps(answer))


class Pool:
    """Three processes that import everything once and then do tasks with 1, 2 or 3 of them."""

    def __init__(self, folder: Path, size: int = 3) -> None:
        self.folder, self.tasks = folder, 0
        context = multiprocessing.get_context("spawn")
        self.members = []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=pool_member, args=(rank, there), daemon=True)
            process.start()
            self.members.append((process, here))

    def run(self, world: int, function: str, *args: Any) -> list[Any]:
        """Every rank's answer; exceptions stand as themselves."""
        self.tasks += 1
        place = f"file://{self.folder}/meet{self.tasks}"
        for _, pipe in self.members[:world]:
            pipe.send((function, args, world, place))
        return [self._answer(process, pipe) for process, pipe in self.members[:world]]

    @staticmethod
    def _answer(process: Any, pipe: Any) -> Any:
        for _ in range(300):
            if pipe.poll(1):
                return pickle.loads(pipe.recv_bytes())
            assert process.is_alive(), f"a process of the pool ended with code {process.exitcode}"
        raise TimeoutError("a process of the pool hangs")

    def close(self) -> None:
        for process, _ in self.members:
            process.kill()
            process.join()
