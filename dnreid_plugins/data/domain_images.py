"""Images that carry their domains, for tools that pass on the images alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..functional.types import Domain


class DomainImages(Tensor):
    """Images ``(B, 3, H, W)`` that carry their ``domains`` ``(B,)`` int64, also to another process.

    fast-reid's tools pass ``batch["images"]`` alone to the predictor. Results computed from it are plain tensors.
    """

    domains: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def of(cls, images: Tensor, domains: Tensor) -> DomainImages:
        """The same memory as ``images``."""
        result = images.as_subclass(cls)
        result.domains = domains
        return result


def as_domains(domain: str | int | Sequence[str | int] | Tensor, count: int) -> Tensor:
    """``(count,)`` int64 from one domain for all images or one per image; see `Domain.named`.

    Raises:
        ValueError: an unknown domain, or a wrong number of them.
    """
    given = domain.tolist() if hasattr(domain, "tolist") else domain
    names = [given] * count if isinstance(given, (str, int)) else list(given)
    if len(names) != count:
        raise ValueError(f"There are {len(names)} domains for {count} images; give one for all, or one each.")
    return torch.tensor([int(Domain.named(name)) for name in names], dtype=torch.int64)
