"""Collate samples to a batch and move it to a device. What cannot be collated is refused, never replaced by None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class LoadFailure:
    """Takes the place of a sample that could not be loaded; the loader raises it as one sentence."""

    message: str
    traceback: str = ""


def on_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """``batch`` with its tensors on ``device``, images as float32; from pinned memory the copy is asynchronous."""
    moved = {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }
    images = moved.get("images")
    if isinstance(images, Tensor) and images.dtype is torch.uint8:
        moved["images"] = images = images.to(torch.float32, memory_format=torch.contiguous_format)
    if moved.pop("erased", None) is not None:
        for image, (*box, red, green, blue) in zip(images, batch["erased"].tolist()):  # type: ignore[arg-type]
            top, left, height, width = map(int, box)
            if height > 0:
                colour = torch.tensor([red, green, blue], device=device).view(3, 1, 1)
                image[:, top : top + height, left : left + width] = colour
    return moved


def collate(samples: Sequence[Any]) -> Any:
    """Batch of samples: tensors and arrays are stacked, numbers become a tensor, texts a list, dicts a dict.

    If there is a :class:`LoadFailure` among the samples, it is returned instead.

    Raises:
        TypeError: samples of an unsupported type, or of different types.
        ValueError: shapes or keys differ.
    """
    first = samples[0]
    for sample in samples:
        if isinstance(sample, LoadFailure):
            return sample
    if isinstance(first, Mapping):
        return {key: collate([_value(sample, key, first) for sample in samples]) for key in first}
    different = {type(sample).__name__ for sample in samples if type(sample) is not type(first)}
    if different:
        raise TypeError(f"a batch mixes {type(first).__name__} and {sorted(different)}; give one type")
    if isinstance(first, str):
        return list(samples)
    if isinstance(first, np.ndarray):
        return _stack([torch.from_numpy(sample) for sample in samples])
    if isinstance(first, Tensor):
        return _stack(list(samples))
    if isinstance(first, (bool, np.bool_)):
        return torch.tensor(samples, dtype=torch.bool)
    if isinstance(first, (int, np.integer)):
        return torch.tensor(samples, dtype=torch.int64)
    if isinstance(first, (float, np.floating)):
        return torch.tensor(samples, dtype=torch.float64)
    raise TypeError(
        f"a sample holds a {type(first).__name__}, which cannot be collated to a batch; "
        "give a number, text, tensor, array or dict"
    )


def _value(sample: Any, key: str, first: Mapping[str, Any]) -> Any:
    if not isinstance(sample, Mapping) or sample.keys() != first.keys():
        raise ValueError(f"samples of one batch must have the same keys; the first has {', '.join(first)}")
    return sample[key]


def _stack(tensors: list[Tensor]) -> Tensor:
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) > 1:
        raise ValueError(f"tensors of one batch have shapes {shapes[:3]}; give images one INPUT.SIZE")
    return torch.stack(tensors)
