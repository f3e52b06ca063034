"""Instance-aware prompts: learned tokens per image plus a bias computed from the image's feature (Eq. 1).

    b_i = W2 ReLU(W1 x_i + c1) + c2;   t'_{i,m} = t_{i,m} + b_i
    prompt_i = "A daytime photo of a [t'_1] ... [t'_M] vehicle."

of "Bridging Day and Night". Every training image has its own M tokens (DN-Wild: 106,365 x 4 x 512 numbers),
so the table's gradient is sparse: a step touches the rows of its batch only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fastreid.config import CfgNode
from torch import Tensor, nn

from ..functional.types import Domain
from .text import ClipTextTower


def add_prompt_config(cfg: CfgNode) -> None:
    """Add ``MODEL.PROMPT`` (what a prompt is) and ``PROMPT_STAGE`` (how stage 1 trains it) to ``cfg``."""
    prompt = cfg.MODEL.PROMPT = CfgNode()
    # Sentence of a day image and of a night image; {} stands for the learned tokens.
    prompt.TEMPLATES = ("A daytime photo of a {} vehicle.", "A nighttime photo of a {} vehicle.")
    # Learned tokens per image (M; the paper studies 1 to 8).
    prompt.NUM_TOKENS = 4
    # Width of the bias net's hidden layer (80 = 1280 / 16); 0 = no bias net, tokens alone.
    prompt.BIAS_HIDDEN = 80
    # Standard deviation of the tokens at the start.
    prompt.INIT_STD = 0.02
    # Sparse token table: only the images of a batch get gradient and optimizer steps. False is the released
    # code's dense table, whose AdamW also moves the tokens of images that are not in the batch.
    prompt.SPARSE = True

    stage = cfg.PROMPT_STAGE = CfgNode()
    # Passes over the larger domain; 0 = no stage 1 (tokens stay random). Released code 180, paper 150.
    stage.EPOCHS = 180
    # Images per domain and step.
    stage.BATCH_SIZE = 64
    # "AdamW" (released code) or "Adam" (paper; decay then enters the gradient).
    stage.OPTIMIZER = "AdamW"
    # Learning rate after the warm-up, from which a cosine goes down (paper: value lost).
    stage.LR = 3.5e-4
    stage.WEIGHT_DECAY = 1e-4
    # Epochs of linear warm-up from WARMUP_LR to LR; 0 = none.
    stage.WARMUP_EPOCHS = 5
    stage.WARMUP_LR = 1e-5
    # Learning rate in the last epoch.
    stage.MIN_LR = 1e-6
    # Divides the similarity of image and text (tau of Eq. 2-3).
    stage.TEMPERATURE = 1.0
    # Learning rate of a sparse table's rows. "dense": as much above LR as a row moves further per visit under
    # the released code's dense AdamW, whose momentum goes on for the rest of the epoch (5.5 x at 31 steps an
    # epoch, 26 x at DN-Wild's 1109). "plain": LR.
    stage.TOKEN_RATE = "dense"
    # First moment of the token table: "float32" or "bfloat16" (DN-Wild: 0.4 GiB less).
    stage.FIRST_MOMENT = "float32"
    # Images of the larger domain that do not fill a batch: "drop" them for this epoch, "merge" them into the
    # last full batch or "keep" them as a smaller batch.
    stage.LAST_BATCH = "drop"
    # A finished stage 1 of another run (its OUTPUT_DIR/stage1.pth) to use instead of running it again.
    stage.WEIGHTS = ""
    # Keep the state of a running stage 1 every so many epochs; SOLVER.CHECKPOINT_MINUTES counts too.
    stage.CHECKPOINT_PERIOD = 10


class DynamicBiasNet(nn.Module):
    """``(B, F)`` image features -> ``(B, D)`` bias of their tokens; 1280 -> 80 -> 512 is 143,952 weights."""

    def __init__(self, *, in_dim: int, hidden_dim: int, out_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_dim, hidden_dim)
        self.out = nn.Linear(hidden_dim, out_dim)
        for layer in (self.hidden, self.out):  # torch's own start, drawn from our generator
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(features)))


class PromptLearner(nn.Module):
    """The prompts of all training images.

    Args:
        text: the text tower, for the embeddings of the templates' words; it is not kept.
        domains: ``(N,)`` int64, `Domain` of every training image in canonical order.
        feature_dim: F, width of the image feature (1280).
        templates: sentence of day and of night, each with one ``{}`` where the learned tokens stand.
        num_tokens: M.
        bias_hidden: hidden width of the bias net; 0 = none.
        sparse: see `add_prompt_config`.
        seed: of tokens and bias net.

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
        templates: Sequence[str] = ("A daytime photo of a {} vehicle.", "A nighttime photo of a {} vehicle."),
        num_tokens: int = 4,
        bias_hidden: int = 80,
        init_std: float = 0.02,
        sparse: bool = True,
        seed: int = 0,
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
            features: ``(B, F)``, what the bias net sees.

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
            raise ValueError(
                f"The template {template!r} has no place, or several, for the learned tokens; write one {{}}."
            )
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


def build_prompt_learner(cfg: CfgNode, text: ClipTextTower, domains: Tensor) -> PromptLearner:
    """The prompts that ``cfg.MODEL.PROMPT`` describes for images of these ``domains`` ``(N,)``."""
    arguments: dict[str, Any] = {key.lower(): value for key, value in cfg.MODEL.PROMPT.items()}
    return PromptLearner(
        text=text, domains=domains, feature_dim=cfg.MODEL.BACKBONE.FEAT_DIM, seed=cfg.SEED, **arguments
    )
