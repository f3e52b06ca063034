"""Parameters and multiply-adds of a module, computed by running it once.

Two counts of the arithmetic stand side by side, because published tables mix them: `macs` is everything
(matrix products, convolutions, attention), `layer_macs` only what a per-layer counter sees, the plain linear
and convolution layers: attention's own projections and products are missing there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class ModuleStats:
    """Cost of one module for one sample.

    Attributes:
        name: of the row.
        parameters: all of them.
        layer_parameters: without token table, class token, position embedding and projection for an image
            tower, without the token table for a text tower: which is what published tables usually count.
        macs: multiply-adds, attention included.
        layer_macs: multiply-adds of plain ``nn.Linear`` and ``nn.Conv2d`` layers.
    """

    name: str
    parameters: int
    layer_parameters: int
    macs: int
    layer_macs: int


def count(
    name: str, module: nn.Module, run: Callable[[], Any], *, uncounted: tuple[str, ...] = ()
) -> ModuleStats:
    """Run a module once on one sample and count.

    Args:
        name: of the row.
        module: whose parameters and layers are counted; in eval mode.
        run: calls the module on one sample.
        uncounted: prefixes of parameter names that ``layer_parameters`` leaves out.
    """
    layer_macs = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal layer_macs
        weight: Any = layer.weight
        positions = output.shape[2] * output.shape[3] if output.ndim == 4 else output[..., 0].numel()
        layer_macs += weight.numel() * positions

    # Attention's output projection is a subclass of nn.Linear that is never called as a module.
    layers = [layer for layer in module.modules() if type(layer) in (nn.Linear, nn.Conv2d)]
    handles = [layer.register_forward_hook(add) for layer in layers]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one opaque operator, which the counter does not know
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for handle in handles:
            handle.remove()
    sizes = {key: p.numel() for key, p in module.named_parameters()}
    counted = sum(size for key, size in sizes.items() if not key.startswith(uncounted or ("\0",)))
    return ModuleStats(name, sum(sizes.values()), counted, counter.get_total_flops() // 2, layer_macs)


def prompted_clip_stats(
    model: str = "ViT-B-16", *, input_size: tuple[int, int] = (256, 256), bias_hidden: int = 80
) -> list[ModuleStats]:
    """Image tower, text tower (77 tokens and cut) and bias net of a CLIP with learned prompts, random weights."""
    from ..modeling.clip.image_tower import ClipVitBackbone
    from ..modeling.clip.prompts import PromptLearner
    from ..modeling.clip.text_tower import ClipTextTower
    from ..modeling.clip.weights import build_open_clip, describe

    description = describe(model)
    towers = build_open_clip(description).eval()
    image = ClipVitBackbone(visual=towers.visual, input_size=input_size)
    text = ClipTextTower(model=towers, vocabulary=description.vocabulary)
    prompts = PromptLearner(
        text=text, domains=torch.zeros(1), feature_dim=image.feat_dim, bias_hidden=bias_hidden
    )
    feature, first = torch.randn(1, image.feat_dim), torch.zeros(1, dtype=torch.int64)
    embeddings, eot = prompts(first, feature)
    longest = text.positional_embedding.shape[0]
    padded = torch.zeros(1, longest, text.width)
    padded[:, : embeddings.shape[1]] = embeddings.detach()
    picture = torch.randn(1, 3, *input_size)
    outside = ("embed.class_embedding", "embed.positional_embedding", "project")
    words = ("token_embedding",)
    rows = [
        count("image encoder", image, lambda: image(picture), uncounted=outside),
        count("text encoder", text, lambda: text.encode_prompts(padded, longest - 1), uncounted=words),
        count("text encoder, cut", text, lambda: text.encode_prompts(embeddings, eot), uncounted=words),
    ]
    net = prompts.bias_net
    if net is not None:
        rows.append(count("dynamic-bias net", net, lambda: net(feature)))
    return rows


def table(rows: list[ModuleStats], paper: dict[str, tuple[float, float]] | None = None) -> str:
    """The rows as a Markdown table, next to a paper's two numbers if it has them."""
    lines = [
        "| module | parameters | of its layers | paper | multiply-adds | of its layers | paper |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        macs, parameters = (paper or {}).get(row.name, (None, None))
        cells = [row.parameters, row.layer_parameters, parameters, row.macs, row.layer_macs, macs]
        lines.append(f"| {row.name} | " + " | ".join(short(cell) for cell in cells) + " |")
    return "\n".join(lines)


def short(value: float | None) -> str:
    """A number in thousands, millions or billions; "" for none."""
    if value is None:
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f}"
