"""Instance-aware prompts: learned tokens per image plus a bias computed from the image's feature (Eq. 1).

    b_i = W2 ReLU(W1 x_i + c1) + c2;   t'_{i,m} = t_{i,m} + b_i
    prompt_i = "A daytime photo of a [t'_1] ... [t'_M] vehicle."

of "Bridging Day and Night". Every training image has its own M tokens (DN-Wild: 106,365 x 4 x 512 numbers),
so the table's gradient is sparse: a step changes the rows of its batch only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...functional.types import Domain
from ...runtime.sections import Count, CountOrNone, NotNegative, configured, construct
from .text_tower import ClipTextTower, build_text_tower


class DynamicBiasNet(nn.Module):
    """``(B, F)`` image features -> ``(B, D)`` bias of their tokens; 1280 -> 80 -> 512 is 143,952 weights."""

    def __init__(self, *, in_dim: int, hidden_dim: int, out_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_dim, hidden_dim)
        self.out = nn.Linear(hidden_dim, out_dim)
        for layer in (self.hidden, self.out):  # torch's own initialisation, drawn from our generator
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(features)))


@configured("MODEL.PROMPT", without=("seed",))
class PromptLearner(nn.Module):
    """The prompts of all training images.

    Args:
        text: The text tower, for the embeddings of the templates' words; it is not stored.
        domains: ``(N,)`` int64, `Domain` of every training image in canonical order.
        feature_dim: F, width of the image feature (1280).
        seed: For tokens and bias net.
        templates: Sentence of a day image and of a night image, each with one {} for the learned tokens.
        num_tokens: Learned tokens per image (M; the paper studies 1 to 8).
        bias_hidden: Width of the bias net's hidden layer (80 = 1280 / 16); 0 = no bias net, tokens alone.
        init_std: Standard deviation of the tokens at the start.
        sparse: Sparse token table: only the images of a batch get gradient and optimizer steps. False is the released
            code's dense table, where AdamW also moves the tokens of images that are not in the batch.

    Attributes:
        tokens: ``nn.Embedding(N, M * D)``.
        bias_net: `DynamicBiasNet` or ``None``.

    Raises:
        ValueError: a template without exactly one ``{}``, M < 1, or a prompt longer than the tower.
    """

    frame: Tensor
    slots: Tensor
    eot: Tensor
    domains: Tensor

    def __init__(
        self,
        *,
        text: ClipTextTower,
        domains: Tensor,
        feature_dim: int,
        seed: int = 0,
        templates: Sequence[str] = ("A daytime photo of a {} vehicle.", "A nighttime photo of a {} vehicle."),
        num_tokens: Count = 4,
        bias_hidden: CountOrNone = 80,
        init_std: NotNegative = 0.02,
        sparse: bool = True,
    ) -> None:
        super().__init__()
        if num_tokens < 1 or len(templates) != len(Domain):
            raise ValueError(f"Got {num_tokens} tokens and {len(templates)} templates; it takes >= 1 and 2.")
        frame, starts, eot = _frames(text, templates, num_tokens)
        self.register_buffer("frame", frame, persistent=False)
        self.register_buffer("slots", starts[:, None] + torch.arange(num_tokens), persistent=False)
        self.register_buffer("eot", eot, persistent=False)
        self.register_buffer("domains", domains.to(torch.int64).cpu(), persistent=False)
        generator = torch.Generator().manual_seed(seed)
        table = torch.empty(len(domains), num_tokens * text.width)
        nn.init.normal_(table, std=init_std, generator=generator)
        self.tokens = nn.Embedding.from_pretrained(table, freeze=False, sparse=sparse)
        self.bias_net: DynamicBiasNet | None = None
        if bias_hidden:
            self.bias_net = DynamicBiasNet(
                in_dim=feature_dim, hidden_dim=bias_hidden, out_dim=text.width, generator=generator
            )

    @property
    def num_images(self) -> int:
        return self.tokens.num_embeddings

    def forward(self, indices: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts of some images, ready for `ClipTextTower.encode_prompts`.

        Args:
            indices: ``(B,)`` int64 positions in the canonical training list.
            features: ``(B, F)``, input of the bias net.

        Returns:
            token embeddings ``(B, L, D)`` and the position ``(B,)`` of the end-of-text token.
        """
        domains, width = self.domains[indices], self.frame.shape[2]
        tokens = self.tokens(indices).unflatten(1, (-1, width))
        if self.bias_net is not None:
            tokens = tokens + self.bias_net(features)[:, None]
        slots = self.slots[domains][..., None].expand(-1, -1, width)
        return self.frame[domains].to(tokens.dtype).scatter(1, slots, tokens), self.eot[domains]

    def text_features(self, text: ClipTextTower, indices: Tensor, features: Tensor) -> Tensor:
        """``(B, P)`` text features of some images' prompts, not normalised."""
        return text.encode_prompts(*self(indices, features))


def _frames(text: ClipTextTower, templates: Sequence[str], num_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embedded templates ``(2, L, D)`` with zeros for learned tokens, first slots ``(2,)``, ends ``(2,)``."""
    start, end = text.start_end_ids()
    sentences, starts = [], []
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"The template {template!r} must have exactly one {{}} for the learned tokens.")
        before, after = template.split("{}")
        prefix = [start, *text.word_ids(before)]
        sentences.append((prefix, [*text.word_ids(after), end]))
        starts.append(len(prefix))
    lengths = [len(prefix) + num_tokens + len(suffix) for prefix, suffix in sentences]
    if max(lengths) > text.positional_embedding.shape[0]:
        raise ValueError(
            f"A prompt has {max(lengths)} tokens; the tower takes {text.positional_embedding.shape[0]}."
        )
    frame = torch.zeros(len(templates), max(lengths), text.width)
    for row, (prefix, suffix) in enumerate(sentences):
        frame[row, : len(prefix)] = text.embed(torch.tensor(prefix)).float()
        frame[row, lengths[row] - len(suffix) : lengths[row]] = text.embed(torch.tensor(suffix)).float()
    return frame, torch.tensor(starts), torch.tensor(lengths) - 1


def build_prompt_learner(cfg: Any, text: ClipTextTower, domains: Tensor) -> PromptLearner:
    """The prompts that ``cfg.MODEL.PROMPT`` describes for images of these ``domains`` ``(N,)``."""
    return construct(
        PromptLearner, cfg, text=text, domains=domains, feature_dim=cfg.MODEL.BACKBONE.FEAT_DIM, seed=cfg.SEED
    )


class KeptPrompts(nn.Module):
    """Replaces the prompts of all images, but holds only those of ``indices`` ``(U,)``, ascending."""

    def __init__(self, prompts: PromptLearner, indices: Tensor) -> None:
        super().__init__()
        self.prompts = prompts
        self.indices = indices

    def text_features(self, text: ClipTextTower, indices: Tensor, features: Tensor) -> Tensor:
        """As `PromptLearner.text_features`."""
        return self.prompts.text_features(text, torch.searchsorted(self.indices, indices), features)


def keep_prompts(prompts: PromptLearner, indices: Tensor) -> dict[str, Any]:
    """The prompts of the images ``indices`` ``(B,)`` as plain tensors.

    ``indices`` ``(U,)`` int64, ascending; ``domains`` ``(U,)`` int64; ``tokens`` ``(U, M * D)``; ``bias_net``, a state
    dict. The text tower is not stored: `join_kept` builds it from the config again.
    """
    rows = indices.unique().cpu()
    table = prompts.tokens.weight.detach()
    return {
        "indices": rows,
        "domains": prompts.domains[rows],
        "tokens": table[rows.to(table.device)],
        "bias_net": {} if prompts.bias_net is None else prompts.bias_net.state_dict(),
    }


def join_kept(parts: Sequence[dict[str, Any]], cfg: Any) -> tuple[KeptPrompts, ClipTextTower]:
    """The prompts of one global batch that several processes have saved, and the text tower of ``cfg``."""
    indices = torch.cat([part["indices"] for part in parts])
    # The position of each image's first row.
    rising, which = indices.unique(return_inverse=True)
    first = torch.full_like(rising, len(indices)).scatter_reduce(
        0, which, torch.arange(len(indices)), reduce="amin"
    )
    rows = {key: torch.cat([part[key] for part in parts])[first] for key in ("indices", "domains", "tokens")}
    text = build_text_tower(cfg)
    prompts = build_prompt_learner(cfg, text, rows["domains"])
    prompts.tokens.weight.data.copy_(rows["tokens"])
    if prompts.bias_net is not None:
        prompts.bias_net.load_state_dict(parts[0]["bias_net"])
    device = cfg.MODEL.DEVICE
    return KeptPrompts(prompts.to(device), rows["indices"].to(device)), text.to(device)
