"""A stage that computes something at once: there is no half of it to keep."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...runtime.agreement import computed_once
from .base import Stage, name_of_images


class ComputeStage(Stage):
    """Named tensors, computed before the first epoch and taken from the stage's file on a resume."""

    result: dict[str, Tensor]
    _done = False

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """The result; called in every process, so that it may extract features. That of the main one counts."""

    @abstractmethod
    def use(self, result: dict[str, Tensor]) -> None:
        """Give ``result``, on the CPU, to the parts that asked for the stage."""

    def prepare(self) -> dict[str, str]:
        return {"training images": name_of_images([item[0] for item in self.run.train_data.items])}

    def begin(self) -> bool:
        self.result = {name: tensor.detach().cpu() for name, tensor in self.compute().items()}
        return True

    def run_epoch(self) -> None:
        self._done = True

    @property
    def finished(self) -> bool:
        return self._done

    @property
    def epoch(self) -> int:
        return 1 + self._done

    def place(self) -> str:
        return "its end"

    def state(self, *, finished: bool) -> dict[str, Any]:
        return {"result": self.result}

    def load_running(self, state: dict[str, Any]) -> None:
        """Nothing: it is computed anew."""

    def load_result(self, state: dict[str, Any], file: Path) -> None:
        self.result = state["result"]

    def tensors(self) -> Sequence[Tensor]:
        return ()

    def hand_over(self) -> None:
        self.use(computed_once(lambda: self.result))
