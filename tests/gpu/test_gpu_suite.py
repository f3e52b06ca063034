"""The GPU suite with the CPU in the GPU's place: every check passes, a broken function fails, a limit stops one."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

HERE = Path(__file__).resolve().parent


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(HERE), str(HERE.parents[1] / "tools"), *sys.path])
    return importlib.import_module("checks")


@pytest.fixture
def suite(checks: ModuleType) -> ModuleType:
    return importlib.import_module("gpu_suite")


def test_every_public_function_has_a_case_or_a_reason(checks: ModuleType) -> None:
    cases = checks.functional_cases
    known = set(cases.CASES) | set(cases.CPU_ONLY)
    assert known - cases.CLASSES == cases.public_functions(), (
        "give it a case in tests/gpu/functional_cases.py"
    )
    assert not set(cases.CASES) & set(cases.CPU_ONLY) and all(cases.CPU_ONLY.values())


def test_every_case_gives_something_and_those_of_losses_a_gradient(checks: ModuleType) -> None:
    cases = checks.functional_cases
    for name, case in cases.CASES.items():
        world = cases.World("cpu")
        found = [torch.as_tensor(one) for one in checks.leaves_of(case(world))]
        assert found and sum(one.numel() for one in found) > 0, name
        if name.startswith("losses.") and any(one.requires_grad for one in found):
            gradients = checks.answer(case, "cpu")[len(found) :]
            nothing = name == "losses.contrast.zero_with_graph"
            assert nothing or any(bool((one != 0).any()) for one in gradients), name


def test_a_function_that_differs_on_the_device_is_named(
    checks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def wrong(world: Any) -> torch.Tensor:
        calls.append(world.device)
        return world.x.sum() * (1.0 if len(calls) == 1 else 1.01)

    def on_the_cpu_alone(world: Any) -> torch.Tensor:
        return world.day * world.to(torch.ones(4 if len(calls) > 1 else 1)[:, None])

    monkeypatch.setattr(
        checks.functional_cases, "CASES", {"a": wrong, "b": on_the_cpu_alone, "c": lambda w: w.y}
    )
    with pytest.raises(AssertionError, match=r"2 of 3 differ: a: .*; b: RuntimeError"):
        checks.functional_parity("cpu")


#: Of the checks that train, those that a test of this length can hold; the others are marked slow.
QUICK = (
    "every function of the room functional",
    "labels as on the CPU",
    "full size, Bridging",
    "ranking at DN-Wild's size",
    "label phase at DN-Wild's size",
    "a million images, exact",
)


def small_checks() -> list[Any]:
    sys.path.insert(0, str(HERE))
    names = importlib.import_module("checks").CHECKS
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", small_checks())
def test_each_check_passes_with_the_cpu_in_the_place_of_the_gpu(checks: ModuleType, name: str) -> None:
    device = "cpu:0" if name == "checkpoints change the device" else "cpu"
    figures = checks.CHECKS[name].run(device, small=True)
    assert figures and json.loads(json.dumps(figures)) == figures
    assert checks.about(checks.CHECKS[name]).endswith(".")


def test_a_run_on_the_device_that_goes_wrong_is_found(
    checks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = {"loss": torch.tensor(1.0)}
    runs = iter([[loss], [{"loss": torch.tensor(1.1)}]])
    monkeypatch.setattr(checks, "losses_of_run", lambda cfg: next(runs))
    with pytest.raises(AssertionError, match="float32: the first losses differ by"):
        checks.training_steps("cpu", system="Base")
    runs = iter([[loss], [loss, {"loss": torch.tensor(float("nan"))}]])
    with pytest.raises(AssertionError, match="float32: a loss is not finite"):
        checks.training_steps("cpu", system="Base")
    weights = iter([{"w": torch.zeros(1)}, {"w": torch.ones(1)}])
    monkeypatch.setattr(checks.run_helpers, "train", lambda cfg: None)
    monkeypatch.setattr(checks.run_helpers, "weights", lambda trainer: next(weights))
    with pytest.raises(AssertionError, match="1 of 1 tensors differ"):
        checks.deterministic_twice("cpu")


# ------------------------------------------------------------------ the command


def test_without_a_gpu_nothing_is_tried(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert suite.main([]) == 0
    assert "There is no GPU" in capsys.readouterr().out


def test_a_failure_or_a_limit_does_not_stop_the_others(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcomes = iter(
        [
            {"outcome": "failed", "reason": "it differs", "seconds": 1.0},
            {"outcome": "passed", "figures": {"s": 1.0}, "seconds": 1.0},
        ]
    )
    limits: list[float] = []

    def one(name: str, device: str, *, small: bool, limit: float) -> dict[str, Any]:
        limits.append(limit)
        return next(outcomes)

    monkeypatch.setattr(suite, "in_own_process", one)
    names = list(suite.checks.CHECKS)[:2]
    only = [word for name in names for word in ("--only", name)]
    file = tmp_path / "new" / "gpu.json"
    assert suite.main(["--device", "cpu", "--small", "--json", str(file), *only]) == 1
    found = json.loads(file.read_text())
    assert [one["outcome"] for one in found["checks"].values()] == ["failed", "passed"]
    assert limits == [suite.checks.CHECKS[name].limit for name in names]
    assert suite.main(["--device", "cpu", "--budget", "0", "--json", str(file), *only]) == 0
    found = json.loads(file.read_text())
    assert {one["reason"] for one in found["checks"].values()} == {"the budget of 0 s was spent"}


def test_a_check_has_its_own_process_and_time(suite: ModuleType) -> None:
    name = "every function of the room functional"
    found = suite.in_own_process(name, "cpu", small=True, limit=300)
    assert found["outcome"] == "passed" and found["figures"]["functions"] > 60
    assert suite.in_own_process(name, "cpu", small=True, limit=0.01)["outcome"] == "too slow"
    found = suite.in_own_process("no such check", "cpu", small=True, limit=300)
    assert found["outcome"] == "failed" and "no such check" in found["reason"]


def test_the_page_shows_what_was_run(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = suite.make_gpu_page
    monkeypatch.setattr(page, "FIGURES", tmp_path / "gpu.json")
    assert "**It has not been run**" in page.make()
    name, *others = suite.checks.CHECKS
    outcomes = {name: {"outcome": "passed", "figures": {"s": 1.2345, "peak GiB": None}, "seconds": 2.0}}
    outcomes[others[0]] = {"outcome": "failed", "reason": "a | b", "seconds": 2.0}
    found = {"device": "A GPU", "torch": "2", "cuda": "13", "seconds": 4.0, "checks": outcomes}
    page.FIGURES.write_text(json.dumps(found))
    text = page.make()
    assert (
        "Run on A GPU with torch 2 (CUDA 13) in 4 s: 1 passed, 1 failed." in text
        and "not been run" not in text
    )
    assert "| passed | s 1.23 |" in text and r"| failed | a \| b |" in text and "| not run |" in text
