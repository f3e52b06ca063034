"""Adam for tables of which each step uses a few rows only: per-image prompt tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def row_adam_(
    table: Tensor,
    rows: Tensor,
    grad: Tensor,
    first: Tensor,
    second: Tensor,
    visits: Tensor,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = True,
) -> None:
    """One Adam step on ``rows`` of ``table``, in place; all other rows stay bit-identical.

    A row's step count is the number of its own visits, so moments and bias correction of a row are those of a
    dense optimizer that is stepped only when the row is in the batch. If every row is in every batch this is
    ``torch.optim.AdamW`` (``decoupled``) or ``torch.optim.Adam``.

    Args:
        table: ``(N, D)`` parameters.
        rows: ``(R,)`` int64 without repetition; may be empty.
        grad: ``(R, D)`` gradient of these rows.
        first, second: ``(N, D)`` moments. The first may be bfloat16: its memory is short (a rounding error vanishes
            within a few visits). The second may not: a step changes it by less than bfloat16 can represent.
        visits: ``(N,)`` whole numbers in the table's dtype, steps that each row has had.
        decoupled: weight decay shrinks the row itself (AdamW) instead of entering its gradient (Adam).
    """
    old = table[rows]
    if weight_decay and decoupled:
        old = old * (1 - lr * weight_decay)
    elif weight_decay:
        grad = grad + weight_decay * old
    count = visits[rows] + 1
    mean = first[rows].to(grad.dtype).lerp(grad, 1 - betas[0])
    square = torch.addcmul(second[rows] * betas[1], grad, grad, value=1 - betas[1])
    bias_first = 1 - torch.pow(betas[0], count.double())
    bias_second = (1 - torch.pow(betas[1], count.double())).sqrt()
    denominator = square.sqrt() / bias_second[:, None].to(square.dtype) + eps
    table[rows] = old - (lr / bias_first)[:, None].to(old.dtype) * (mean / denominator)
    first[rows], second[rows], visits[rows] = mean.to(first.dtype), square, count


class RowAdamW(torch.optim.Optimizer):
    """`row_adam_` on parameters ``(N, D)`` with the sparse gradient of ``nn.Embedding(sparse=True)``.

    Args:
        first_dtype: of the first moment; ``None`` = the parameter's, ``torch.bfloat16`` saves a sixth of table
            and state together.

    Raises:
        ValueError: a parameter that is not a matrix, or a dense gradient.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = True,
        first_dtype: torch.dtype | None = None,
    ) -> None:
        self.first_dtype = first_dtype
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled}
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._step_table(table, table.grad, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self.first_dtype is not None:  # torch has raised every moment to the parameter's dtype
            for state in self.state.values():
                state["first"] = state["first"].to(self.first_dtype)

    def _step_table(self, table: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if table.ndim != 2 or not grad.is_sparse:
            raise ValueError(
                f"RowAdamW got a parameter {tuple(table.shape)} with a {grad.layout} gradient; it needs the "
                "(N, D) table of nn.Embedding(sparse=True)."
            )
        state = self.state[table]
        if not state:
            state["first"] = torch.zeros_like(table, dtype=self.first_dtype)
            state["second"] = torch.zeros_like(table)
            state["visits"] = table.new_zeros(len(table))
        grad = grad.coalesce()
        options = {key: group[key] for key in ("lr", "betas", "eps", "weight_decay", "decoupled")}
        row_adam_(table, grad.indices()[0], grad.values(), **state, **options)
