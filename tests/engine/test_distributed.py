"""Several processes compute what one would, and end together."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gloo_jobs
import pytest
import torch
from gloo_jobs import OPTIONS, shortfalls
from torch import nn

from dnreid_plugins.engine.data_parallel import wrap_model
from dnreid_plugins.modeling.sync_bn import SyncBatchNorm, convert_batch_norms
from dnreid_plugins.runtime.agreement import DisagreementError, any_process, computed_once, fingerprint
from dnreid_plugins.runtime.group import LostProcessError, timeout_minutes
from dnreid_plugins.runtime.launch import launch, torchrun_member


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> Iterator[gloo_jobs.Pool]:
    before = {name: os.environ.get(name) for name in ("FASTREID_DATASETS", "OMP_NUM_THREADS")}
    os.environ.update(FASTREID_DATASETS=str(tiny_root), OMP_NUM_THREADS="1")
    pool = gloo_jobs.Pool(tmp_path_factory.mktemp("meet"))
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> dict[str, Any]:
    """The run of a single process that all others are compared with."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(tiny_root))
        run = gloo_jobs.train([*OPTIONS, "OUTPUT_DIR", str(tmp_path_factory.mktemp("alone"))])
    torch.set_num_threads(threads)
    return run


# ------------------------------------------------------------------ the same results


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_run_gives_the_same_results_as_with_one_process(
    pool: gloo_jobs.Pool, alone: dict[str, Any], tmp_path: Path, world: int
) -> None:
    """Twenty steps: same pseudo labels, prototypes, losses (1e-5) and metrics; the ranks agree bit for bit."""
    assert len(alone["losses"]) == 20 and len(alone["labels"]) == 2
    every = pool.run(world, "train", [*OPTIONS, "OUTPUT_DIR", str(tmp_path)])
    assert shortfalls(alone, every) == []
    # Rank 0 alone has written.
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == ["model_0001.pth", "model_final.pth"]
    assert len((tmp_path / "health.jsonl").read_text().splitlines()) == 2


def test_all_processes_share_the_search_for_neighbours(pool: gloo_jobs.Pool, tmp_path: Path) -> None:
    options = [*OPTIONS, "DATALOADER.ITERS_PER_EPOCH", 1, "SOLVER.MAX_EPOCH", 1, "OUTPUT_DIR", str(tmp_path)]
    options += ["LABELS.REFINERS", ["JointClusters"]]
    assert pool.run(2, "searches", options) == [[2, 2, 2]] * 2


@pytest.mark.parametrize("kind", ["domains and joint", "union"])
def test_several_streams_give_the_same_results(
    pool: gloo_jobs.Pool, tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    options = [*OPTIONS, "LABELS.SOURCE", "Identities", "DATALOADER.ITERS_PER_EPOCH", 4]
    if kind == "union":
        options += ["MODEL.LOSSES.NAME", ["JointContrast"], "MODEL.LOSSES.JOINTCONTRAST.STREAM", "union"]
        options += ["DATALOADER.STREAMS", ["union"], "MODEL.DUAL_STREAM.MODULES", []]
    else:
        options += ["MODEL.LOSSES.NAME", ["ClusterNCE", "JointContrast"], "MODEL.TEACHER.ENABLED", True]
        options += ["DATALOADER.STREAMS", ["domains", "joint"]]
    alone = gloo_jobs.train([*options, "OUTPUT_DIR", str(tmp_path / "alone")])
    every = pool.run(2, "train", [*options, "OUTPUT_DIR", str(tmp_path / "two")])
    assert shortfalls(alone, every) == []
    name = "parts.memory.own_joint"
    assert all(torch.allclose(one["weights"][name], alone["weights"][name], atol=1e-4) for one in every)


def test_a_supervised_run_with_a_teacher_and_a_second_bank_gives_the_same_results(
    pool: gloo_jobs.Pool, tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What parts keep is not exchanged, and every process has the same: joint rows, extra bank, average."""
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    options = [
        *OPTIONS,
        "LABELS.SOURCE",
        "Identities",
        "MODEL.TEACHER.ENABLED",
        True,
        "MODEL.TEACHER.DECAY",
        0.9,
    ]
    options += ["MODEL.LOSSES.NAME", ["ClusterNCE", "TripletLoss"], "MODEL.LOSSES.TRI.MARGIN", 9.0]
    options += ["MODEL.MEMORY.EXTRA_BANKS", [["hard", "hardest"]], "DATALOADER.ITERS_PER_EPOCH", 4]
    alone = gloo_jobs.train([*options, "OUTPUT_DIR", str(tmp_path / "alone")])
    every = pool.run(2, "train", [*options, "OUTPUT_DIR", str(tmp_path / "two")])
    assert shortfalls(alone, every) == []
    kept = [
        "parts.memory.own_joint",
        "parts.memory.hard_night",
        "parts.teacher.encoder.heads.bottleneck.0.weight",
    ]
    for name in kept:
        torch.testing.assert_close(every[0]["weights"][name], alone["weights"][name], atol=1e-4, rtol=1e-4)


def test_rows_that_the_teacher_makes_are_the_same_in_every_process(
    pool: gloo_jobs.Pool, tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process passes its own images through the teacher; all store what all of them made, in one order."""
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    options = [
        *OPTIONS,
        "MODEL.LOSSES.NAME",
        ["ClusterNCE", "DynamicContrast"],
        "MODEL.TEACHER.ENABLED",
        True,
    ]
    options += ["MODEL.LOSSES.DYNAMICCONTRAST.WEIGHT", [[1, 1.0]], "MODEL.LOSSES.DYNAMICCONTRAST.ROWS", 3]
    options += ["INPUT.VIEWS.DAY", [[], ["exchange"]], "DATALOADER.ITERS_PER_EPOCH", 4]
    alone = gloo_jobs.train([*options, "OUTPUT_DIR", str(tmp_path / "alone")])
    every = pool.run(2, "train", [*options, "OUTPUT_DIR", str(tmp_path / "two")])
    assert shortfalls(alone, every) == []
    for name in ("rows_day", "rows_night", "oldest_day", "oldest_night"):
        key = f"parts.losses.DynamicContrast.{name}"
        assert alone["weights"][key].numel() > 0
        for one in every:
            torch.testing.assert_close(one["weights"][key], alone["weights"][key], atol=1e-4, rtol=1e-4)


def test_a_part_with_an_optimizer_of_its_own_gives_the_same_results(
    pool: gloo_jobs.Pool, tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adversarial classifier is trained in every process, on the batch of all."""
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    options = [
        *OPTIONS,
        "MODEL.LOSSES.NAME",
        ["ClusterNCE", "DomainConfusion"],
        "DATALOADER.ITERS_PER_EPOCH",
        4,
    ]
    options += ["INPUT.VIEWS.DAY", [[], ["exchange"]], "MODEL.LOSSES.DOMAINCONFUSION.HIDDEN", 16]
    options += ["MODEL.LOSSES.DOMAINCONFUSION.WEIGHT", [[2, 1.0]]]
    alone = gloo_jobs.train([*options, "OUTPUT_DIR", str(tmp_path / "alone")])
    every = pool.run(2, "train", [*options, "OUTPUT_DIR", str(tmp_path / "two")])
    assert shortfalls(alone, every) == []
    for name in ("classifier", "velocity"):
        key = f"parts.losses.DomainConfusion.{name}"
        torch.testing.assert_close(every[0]["weights"][key], alone["weights"][key], atol=1e-4, rtol=1e-4)


def test_a_resumed_run_of_two_processes_ends_as_the_undisturbed_one(
    pool: gloo_jobs.Pool, tmp_path: Path
) -> None:
    options = [
        *OPTIONS,
        "DATALOADER.ITERS_PER_EPOCH",
        4,
        "SOLVER.CHECKPOINT_KEEP",
        9,
        "OUTPUT_DIR",
        str(tmp_path),
    ]
    options += ["SOLVER.CHECKPOINT_MINUTES", 1e-9]
    whole = pool.run(2, "train", options)[0]
    for name in ("model_final.pth", "model_iter00000007.pth", "last_checkpoint"):
        (tmp_path / name).unlink()
    again = pool.run(2, "train", options, True)
    assert [len(one["losses"]) for one in again] == [2, 2]
    for one in again:
        assert [k for k in whole["weights"] if not torch.equal(whole["weights"][k], one["weights"][k])] == []


def test_when_one_process_is_asked_to_end_all_keep_the_state_and_leave(
    pool: gloo_jobs.Pool, tmp_path: Path
) -> None:
    options = [*OPTIONS, "DATALOADER.ITERS_PER_EPOCH", 4, "OUTPUT_DIR", str(tmp_path / "whole")]
    whole = pool.run(2, "train", options)[0]
    options[-1] = str(tmp_path / "cut")
    for stopped in pool.run(2, "train_until_asked", options, 1, 5):
        assert isinstance(stopped, SystemExit) and stopped.code == 128 + signal.SIGTERM
    again = pool.run(2, "train", options, True)[0]
    assert len(again["losses"]) == 2
    assert [k for k in whole["weights"] if not torch.equal(whole["weights"][k], again["weights"][k])] == []


def test_without_synchronised_batch_norm_the_ranks_still_agree(pool: gloo_jobs.Pool, tmp_path: Path) -> None:
    options = [*OPTIONS, "MODEL.SYNC_BN", False, "DATALOADER.ITERS_PER_EPOCH", 3, "OUTPUT_DIR", str(tmp_path)]
    first, second = pool.run(2, "train", options)
    assert [k for k in first["weights"] if not torch.equal(first["weights"][k], second["weights"][k])] == []


def test_ghost_batch_norm_agrees_at_every_epochs_start(pool: gloo_jobs.Pool, tmp_path: Path) -> None:
    """It cannot be synchronised, so the processes' statistics drift apart and rank 0's are taken over."""
    options = [*OPTIONS, "MODEL.HEADS.NORM", "GhostBN", "DATALOADER.ITERS_PER_EPOCH", 3]
    first, second = pool.run(2, "train", [*options, "OUTPUT_DIR", str(tmp_path)])
    assert [k for k in first["weights"] if not torch.equal(first["weights"][k], second["weights"][k])] == []


def test_ranks_that_drift_apart_are_stopped_with_the_reason(pool: gloo_jobs.Pool, tmp_path: Path) -> None:
    for error in pool.run(2, "disagree", [*OPTIONS, "OUTPUT_DIR", str(tmp_path)]):
        assert isinstance(error, DisagreementError)
        assert "At the start of epoch 1 the processes differ in {'weights'" in str(error)


# ------------------------------------------------------------------ the parts


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_batch_norm_of_all_processes_is_batch_norm_of_the_whole(
    pool: gloo_jobs.Pool, world: int, half: bool
) -> None:
    x = torch.randn(7, 5, 2, 3) * 3 + torch.arange(5).view(1, 5, 1, 1) * 10
    factors = torch.rand(7, 5, 2, 3)
    layer, inputs = nn.BatchNorm2d(5), x.clone().requires_grad_()
    output = layer(inputs)
    (output.square() * factors).sum().backward()
    every = pool.run(world, "normalized", x, factors, half)
    close = {"atol": 2e-4, "rtol": 1e-4}
    for rank, one in enumerate(every):
        torch.testing.assert_close(one["output"].float(), output[rank::world].detach(), **close)
        torch.testing.assert_close(one["input_gradient"], inputs.grad[rank::world], **close)
        for key, value in layer.state_dict().items():
            torch.testing.assert_close(one["state"][key], value, **close)
    # DistributedDataParallel adds the processes' shares up.
    for name in ("weight", "bias"):
        total = sum(one[f"{name}_gradient"] for one in every)
        torch.testing.assert_close(total, getattr(layer, name).grad, **close)


def test_converted_layers_keep_parameters_and_names_and_leave_others_alone() -> None:
    class Ghost(nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), Ghost(4)), nn.BatchNorm1d(4))
    model[2].eval()
    before, keys = dict(model.named_parameters()), list(model.state_dict())
    twin = copy.deepcopy(model)
    convert_batch_norms(model)
    assert isinstance(model[1][0], SyncBatchNorm) and isinstance(model[2], SyncBatchNorm)
    assert type(model[1][1]) is Ghost and not model[2].training
    assert list(model.state_dict()) == keys
    assert all(value is before[name] for name, value in model.named_parameters())
    x = torch.randn(2, 3, 2, 2)
    assert torch.equal(model[:2](x), twin[:2](x))
    assert torch.equal(model[1][0].running_mean, twin[1][0].running_mean)


@pytest.mark.parametrize("night", [0, 6])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_gathered_batch_is_in_the_order_of_one_process(
    pool: gloo_jobs.Pool, world: int, night: int
) -> None:
    """Day first, then night, whichever rank had them; the gradient is that of the whole."""
    features, domains = torch.rand(6 + night, 4) + 0.5, torch.tensor([0] * 6 + [1] * night)
    whole = features.clone().requires_grad_()
    loss = (whole[0] @ whole[-1]) + (whole * 2).prod() + (whole * 3).square().sum()
    loss.backward()
    for one in pool.run(world, "gathered", features, domains):
        assert torch.equal(one["features"], features)
        assert torch.equal(one["pooled"], features * 2) and torch.equal(one["more"], features * 3)
        assert torch.equal(one["indices"], torch.arange(len(features)))
        assert torch.equal(one["targets"], torch.arange(len(features)) * 10)
        assert torch.equal(one["domains"], domains)
        assert torch.equal(one["cams"], torch.arange(len(features)) * 100)
        torch.testing.assert_close(one["gradient"], whole.grad[one["share"]])


def test_unequal_shares_are_refused_in_every_process(pool: gloo_jobs.Pool) -> None:
    for error in pool.run(2, "uneven"):
        assert isinstance(error, ValueError)
        assert "images [[2, 1], [1, 2]] in one batch" in str(error)


def test_a_scripts_own_evaluator_answers_in_every_process(pool: gloo_jobs.Pool, tmp_path: Path) -> None:
    (one,) = pool.run(1, "score_by_loop", ["OUTPUT_DIR", str(tmp_path / "1")])
    for answer in pool.run(2, "score_by_loop", ["OUTPUT_DIR", str(tmp_path / "2")]):
        assert answer == pytest.approx(one) and answer["mAP"] > 0


def test_work_is_done_once_and_its_error_reaches_all(pool: gloo_jobs.Pool) -> None:
    for answer in pool.run(3, "helpers"):
        assert answer == {"once": "by rank 0", "any": (True, False), "error": "ZeroDivisionError"}
    assert computed_once(lambda: 3) == 3 and any_process(False, True) == (False, True)


def test_a_fingerprint_changes_with_every_bit_shape_and_dtype() -> None:
    base = torch.arange(6.0)
    changed = base.clone()
    changed[5] = torch.nextafter(changed[5], torch.tensor(9.0))
    others = [changed, base.view(2, 3), base.double(), base.to(torch.int64), base[:5], base[:0]]
    prints = [fingerprint([tensor]) for tensor in (base, *others)]
    assert len(set(prints)) == len(prints) and fingerprint([base.clone()]) == prints[0]


# ------------------------------------------------------------------ starting and ending


def test_a_killed_process_ends_the_others_with_one_sentence(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = [*OPTIONS, "OUTPUT_DIR", str(tmp_path)]
    with pytest.raises(
        LostProcessError, match=r"process 1 of 2 was killed by SIGKILL; the others were ended"
    ):
        launch(gloo_jobs.train_until_killed, 2, args=(options, 1, 3))


SCRIPT = """
import os, sys, time
from pathlib import Path
from fastreid.engine import launch
from fastreid.utils import comm
from dnreid_plugins.runtime.signals import StopSignals

def main(folder):
    signals = StopSignals(lambda: False)
    signals.install()
    (folder / f"pid{comm.get_rank()}").write_text(str(os.getpid()))
    while not signals.wanted:
        time.sleep(0.05)
    time.sleep(comm.get_rank())
    (folder / f"kept{comm.get_rank()}").touch()
    signals.leave("the state is kept")

if __name__ == "__main__":
    launch(main, 2, args=(Path(sys.argv[1]),))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_launcher_gives_all_processes_time_to_keep_their_state(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Of an unmodified script, whose functions the processes must find. Killed, it takes them with it."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, "-m", "dnreid_plugins", str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    pids = [tmp_path / f"pid{rank}" for rank in range(2)]
    _wait_for(lambda: all(path.exists() and path.read_text() for path in pids) or parent.poll() is not None)
    parent.send_signal(number)
    _, said = parent.communicate(timeout=300)
    assert parent.returncode == (-number if number == signal.SIGKILL else 128 + number), said
    _wait_for(lambda: not any(Path(f"/proc/{path.read_text()}").exists() for path in pids))
    assert all((tmp_path / f"kept{rank}").exists() for rank in range(2)), said
    assert "Traceback" not in said


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_torchrun_describes_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    member = torchrun_member()
    assert (member.rank, member.world_size, member.local_rank, member.machine) == (5, 6, 1, 2)
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ValueError, match="environment of torchrun is incomplete"):
        torchrun_member()


def test_torchrun_runs_a_job(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import sys\nimport dnreid_plugins, gloo_jobs\n"
        "from dnreid_plugins.runtime.launch import launch\n"
        "sys.stdout.write(f'ranks {launch(gloo_jobs.ranks)}\\n')\n"
    )
    here = Path(__file__).resolve()
    path = os.pathsep.join(str(folder) for folder in (here.parent, here.parents[1], here.parents[2]))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(script)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("ranks [(0, 0, 2, 2), (1, 1, 2, 2)]") == 2


def test_one_process_is_no_group() -> None:
    assert launch(gloo_jobs.ranks) == [(0, 0, 1, 1)]
    model = nn.BatchNorm1d(2)
    assert wrap_model(model, sync_bn=True) is model


def test_what_cannot_be_started_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="give launch a function at the top level of a file"):
        launch(lambda: None, 2)
    with pytest.raises(ValueError, match="2 machines need tcp://host:port"):
        launch(gloo_jobs.ranks, 2, 2, dist_url="auto")
    monkeypatch.setenv("DNREID_TIMEOUT_MINUTES", "soon")
    with pytest.raises(ValueError, match="DNREID_TIMEOUT_MINUTES is 'soon'"):
        timeout_minutes()
