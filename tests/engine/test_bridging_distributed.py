"""Both stages of Bridging Day and Night in two processes: what one process computes, and what it leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gloo_jobs
import pytest
import torch

OPTIONS: list[Any] = ["tiny_bridging.yml", "SOLVER.IMS_PER_BATCH", 16, "TEST.IMS_PER_BATCH", 32]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> Iterator[gloo_jobs.Pool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(tiny_root))
        patch.setenv("OMP_NUM_THREADS", "1")
        pool = gloo_jobs.Pool(tmp_path_factory.mktemp("meet"))
    yield pool
    pool.close()


def test_two_processes_equal_one(
    pool: gloo_jobs.Pool, tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classifiers are left out of the exchange of gradients and still agree, being sized by the clusters."""
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    alone = gloo_jobs.train([*OPTIONS, "OUTPUT_DIR", str(tmp_path / "alone")])
    every = pool.run(2, "train", [*OPTIONS, "OUTPUT_DIR", str(tmp_path / "two")])
    assert not [one for one in every if isinstance(one, BaseException)]
    first, second = every
    assert first["losses"] == second["losses"]
    layer = "parts.losses.PrototypeClassifier.day"
    assert first["weights"][layer].numel() > 0
    assert all(torch.equal(first["weights"][key], second["weights"][key]) for key in first["weights"])
    for one, many in zip(alone["losses"], first["losses"], strict=True):
        assert many == pytest.approx(one, abs=1e-5)
    prompts = [torch.load(tmp_path / run / "stage1.pth", weights_only=True) for run in ("alone", "two")]
    tokens = [content["stage"]["prompts"]["tokens.weight"] for content in prompts]
    assert torch.allclose(tokens[0], tokens[1], atol=1e-5)
    assert os.listdir(tmp_path / "two").count("stage1.pth") == 1
