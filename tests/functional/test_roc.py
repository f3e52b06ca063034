"""True accepts at a false-accept rate: closed forms and a sorted list of all pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnreid_plugins.functional.roc import tar_at_far

RATES = (0.0, 0.001, 0.01, 0.1, 0.5, 1.0)


def naive(genuine: list[float], impostor: list[float], rate: float) -> float:
    """The largest share of genuine pairs accepted by any threshold that accepts few enough impostors."""
    best = 0.0
    for threshold in [*sorted(set(genuine + impostor)), np.inf]:
        if sum(d < threshold for d in impostor) <= rate * len(impostor) + 1e-9:
            best = max(best, float(np.mean([d < threshold for d in genuine])))
    return 100 * best


@given(seed=st.integers(0, 99), queries=st.integers(1, 12), gallery=st.integers(2, 20), grid=st.booleans())
def test_equals_naive(seed: int, queries: int, gallery: int, grid: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 3, (queries + gallery, 2)) if grid else rng.standard_normal((queries + gallery, 6))
    features = torch.from_numpy(rows.astype(np.float32))  # small integers: exact distances, many ties
    ids, cams = rng.integers(0, 3, queries + gallery), rng.integers(0, 2, queries + gallery)
    genuine, impostor = [], []
    for q in range(queries):
        for g in range(queries, queries + gallery):
            distance = float(np.square(rows[q] - rows[g]).sum())
            if ids[q] != ids[g]:
                impostor.append(distance)
            elif cams[q] != cams[g]:
                genuine.append(distance)
    arguments = (features[:queries], features[queries:], ids[:queries], ids[queries:])
    cameras = (cams[:queries], cams[queries:])
    if not genuine or not impostor:
        with pytest.raises(ValueError, match="needs genuine and impostor pairs"):
            tar_at_far(*arguments, *cameras, metric="euclidean")
        return
    for block in (1, 5, 512):
        found = tar_at_far(*arguments, *cameras, far=RATES, metric="euclidean", block=block)
        assert (found["genuine_pairs"], found["impostor_pairs"]) == (len(genuine), len(impostor))
        for rate in RATES:
            assert found[f"TAR@FAR={rate:.0e}"] == pytest.approx(naive(genuine, impostor, rate)), rate


def test_perfect_separation_is_one_hundred() -> None:
    ids = np.arange(40) % 4
    result = tar_at_far(torch.eye(4)[ids[:20]], torch.eye(4)[ids[20:]], ids[:20], ids[20:])
    assert {key: result[key] for key in ("TAR@FAR=1e-04", "TAR@FAR=1e-03", "TAR@FAR=1e-02")} == {
        "TAR@FAR=1e-04": 100.0,
        "TAR@FAR=1e-03": 100.0,
        "TAR@FAR=1e-02": 100.0,
    }


def test_constant_features_accept_nobody() -> None:
    ids = np.arange(10) % 2
    result = tar_at_far(torch.ones(10, 4), torch.ones(10, 4), ids, ids, far=(0.1,))
    assert result["TAR@FAR=1e-01"] == 0


@pytest.mark.parametrize("far", [(), (-0.1,), (1.1,)])
def test_refuses_other_rates(far: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"far must be rates in \[0, 1\]"):
        tar_at_far(torch.eye(2), torch.eye(2), [0, 1], [0, 1], far=far)
