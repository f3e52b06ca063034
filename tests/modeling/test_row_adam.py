"""Row-wise AdamW against torch's dense optimizers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dnreid_plugins.engine.stages.row_adam import RowAdamW, row_adam_

OPTIONS = {"lr": 0.03, "betas": (0.8, 0.97), "eps": 1e-6, "weight_decay": 0.1}


def sparse_table(num: int, width: int) -> nn.Embedding:
    weight = torch.randn(num, width, dtype=torch.float64, generator=torch.Generator().manual_seed(num))
    return nn.Embedding.from_pretrained(weight, freeze=False, sparse=True)


def loss_of(rows: Tensor, target: Tensor) -> Tensor:
    return ((rows - target).square() * torch.arange(1, 1 + rows.shape[1])).sum()


@pytest.mark.parametrize(("decoupled", "dense"), [(True, torch.optim.AdamW), (False, torch.optim.Adam)])
@pytest.mark.parametrize("num", [1, 5])
def test_every_row_in_every_batch_is_the_dense_optimizer(decoupled: bool, dense: Any, num: int) -> None:
    table = sparse_table(num, 3)
    twin = nn.Parameter(table.weight.detach().clone())
    ours = RowAdamW([table.weight], decoupled=decoupled, **OPTIONS)
    theirs = dense([twin], **OPTIONS)
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        target = torch.randn(num, 3, dtype=torch.float64, generator=generator)
        order = torch.randperm(num, generator=generator)
        for optimizer in (ours, theirs):
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = 0.03 / (1 + step)
        loss_of(table(order), target[order]).backward()
        loss_of(twin, target).backward()
        ours.step()
        theirs.step()
        torch.testing.assert_close(table.weight.detach(), twin.detach())


def test_each_row_is_an_optimizer_of_its_own() -> None:
    """The slow twin of lazy updates: one dense AdamW per row, stepped only when the row is in the batch."""
    num, generator = 7, torch.Generator().manual_seed(1)
    table = sparse_table(num, 3)
    twins = [nn.Parameter(row.clone()) for row in table.weight.detach()]
    ours = RowAdamW([table.weight], **OPTIONS)
    theirs = [torch.optim.AdamW([twin], **OPTIONS) for twin in twins]
    for _ in range(15):
        batch = torch.randint(0, num, (4,), generator=generator)  # an image may be in a batch twice
        target = torch.randn(4, 3, dtype=torch.float64, generator=generator)
        ours.zero_grad()
        loss_of(table(batch), target).backward()
        ours.step()
        for row in batch.unique().tolist():
            theirs[row].zero_grad()
            mine = batch == row
            loss_of(twins[row].expand(int(mine.sum()), 3), target[mine]).backward()
            theirs[row].step()
        torch.testing.assert_close(table.weight.detach(), torch.stack([t.detach() for t in twins]))


def test_rows_outside_the_batch_keep_their_bits() -> None:
    table = sparse_table(6, 4)
    optimizer = RowAdamW([table.weight], **OPTIONS)
    for _ in range(3):  # moments are not zero, weight decay is on
        optimizer.zero_grad()
        table(torch.tensor([0, 1, 2, 3])).square().sum().backward()
        optimizer.step()
    before = table.weight.detach().clone()
    state = {key: value.clone() for key, value in optimizer.state[table.weight].items()}
    optimizer.zero_grad()
    table(torch.tensor([4, 1])).square().sum().backward()
    optimizer.step()
    untouched = [0, 2, 3, 5]
    assert torch.equal(table.weight[untouched], before[untouched])
    for key, value in state.items():
        assert torch.equal(optimizer.state[table.weight][key][untouched], value[untouched])
    assert not (table.weight[[1, 4]] == before[[1, 4]]).any()


def test_empty_batch_changes_nothing() -> None:
    table = sparse_table(3, 2)
    before = table.weight.detach().clone()
    optimizer = RowAdamW([table.weight], **OPTIONS)
    table(torch.empty(0, dtype=torch.int64)).sum().backward()
    optimizer.step()
    assert torch.equal(table.weight, before)


def test_state_survives_saving() -> None:
    tables = [sparse_table(5, 2), sparse_table(5, 2)]
    optimizers = [RowAdamW([table.weight], **OPTIONS) for table in tables]

    def step(i: int, rows: list[int]) -> None:
        optimizers[i].zero_grad()
        tables[i](torch.tensor(rows)).square().sum().backward()
        optimizers[i].step()

    step(0, [0, 1, 4])
    tables[1].load_state_dict(tables[0].state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for i in (0, 1):
        step(i, [1, 2])
    assert torch.equal(tables[0].weight, tables[1].weight)


def test_first_moment_in_bfloat16_stays_close_and_survives_saving() -> None:
    tables = [sparse_table(4, 64) for _ in range(3)]
    dtypes = (None, torch.bfloat16, torch.bfloat16)
    optimizers = [RowAdamW([t.weight], first_dtype=d, **OPTIONS) for t, d in zip(tables, dtypes, strict=True)]
    generator = torch.Generator().manual_seed(2)
    for step in range(30):
        target = torch.randn(4, 64, dtype=torch.float64, generator=generator)
        for table, optimizer in zip(tables, optimizers, strict=True):
            optimizer.zero_grad()
            loss_of(table(torch.arange(4)), target).backward()
            optimizer.step()
        if step == 15:  # the third run is saved and loaded here
            optimizers[2].load_state_dict(copy.deepcopy(optimizers[2].state_dict()))
    moments = [
        optimizer.state[table.weight]["first"] for table, optimizer in zip(tables, optimizers, strict=True)
    ]
    assert [m.dtype for m in moments] == [torch.float64, torch.bfloat16, torch.bfloat16]
    assert torch.equal(tables[1].weight, tables[2].weight)
    moved = (tables[0].weight - sparse_table(4, 64).weight).norm()
    assert 0 < (tables[0].weight - tables[1].weight).norm() < 0.01 * moved


def test_dense_gradient_is_refused() -> None:
    table = nn.Parameter(torch.randn(3, 2))
    table.square().sum().backward()
    with pytest.raises(ValueError, match=r"needs the \(N, D\) table"):
        RowAdamW([table]).step()


def test_first_step_is_the_learning_rate_in_the_direction_of_the_sign() -> None:
    """Closed form: with eps 0 the first Adam step is lr * sign(grad) whatever the gradient's size."""
    table = torch.zeros(4, 2, dtype=torch.float64)
    grad = torch.tensor([[1e-5, -3.0], [7.0, 2.0]], dtype=torch.float64)
    zeros, visits = torch.zeros_like(table), torch.zeros(4)
    row_adam_(table, torch.tensor([3, 1]), grad, zeros.clone(), zeros.clone(), visits, lr=0.5, eps=0.0)
    expected = torch.tensor([[0, 0], [-0.5, -0.5], [0, 0], [-0.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(table, expected)
    assert visits.tolist() == [0, 1, 0, 1]
