"""CLIP's frozen text tower; exact, but a prompt is computed up to its end-of-text token only.

Attention in this tower is causal: no token depends on what follows it. The feature of a text is read at its
end-of-text token, so the padding behind it (64 of 77 positions for "A daytime photo of a X X X X vehicle.")
changes nothing and is not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from fastreid.config import CfgNode
from torch import Tensor, nn

from .weights import build_open_clip, describe


class ClipTextTower(nn.Module):
    """The text half of an open_clip model. Its weights are never trained; gradient flows through to the prompts.

    Args:
        model: ``CLIP`` or ``CustomTextCLIP`` of open_clip. Parameters are used, not copied, and frozen.
        vocabulary: see `ClipDescription`; ``None`` for the full token table.

    Attributes:
        width: D, width of a token embedding (512 for ViT-B/16).
        output_dim: P, width of a text feature (512).

    Raises:
        ValueError: the tower is not causal or does not read its feature at the end-of-text token.
    """

    attn_mask: Tensor

    def __init__(self, *, model: Any, vocabulary: Sequence[int] | None = None) -> None:
        super().__init__()
        tower = getattr(model, "text", model)
        pool = getattr(model, "text_pool_type", getattr(tower, "pool_type", ""))
        if (
            tower.attn_mask is None
            or getattr(tower, "cls_emb", None) is not None
            or pool not in ("argmax", "eos")
        ):
            raise ValueError(
                "This text tower is not causal with its feature at the end-of-text token, so a cut prompt "
                "would change the result; take a model such as ViT-B-16."
            )
        self.token_embedding: nn.Embedding = tower.token_embedding
        self.positional_embedding: nn.Parameter = tower.positional_embedding
        self.transformer: Any = tower.transformer
        self.ln_final: nn.Module = tower.ln_final
        self.text_projection: nn.Parameter | nn.Linear | None = tower.text_projection
        self.register_buffer("attn_mask", tower.attn_mask.clone(), persistent=False)
        self.vocabulary = None if vocabulary is None else torch.tensor(list(vocabulary))
        self.width = self.token_embedding.embedding_dim
        self.output_dim = self._project(
            torch.zeros(1, self.width, dtype=self.positional_embedding.dtype)
        ).shape[1]
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> ClipTextTower:
        """Stays in eval mode whatever ``mode`` is."""
        return super().train(False)

    def word_ids(self, text: str) -> list[int]:
        """Rows of the token table for the words of ``text``, without start and end.

        Raises:
            ValueError: a reduced vocabulary has no row for one of the words.
        """
        return self._rows(_tokenizer().encode(text), text)

    def start_end_ids(self) -> tuple[int, int]:
        """Rows of the start-of-text and the end-of-text token."""
        tokenizer = _tokenizer()
        start, end = self._rows([tokenizer.sot_token_id, tokenizer.eot_token_id], "start and end of text")
        return start, end

    def embed(self, ids: Tensor) -> Tensor:
        """``(...,)`` int64 rows -> ``(..., D)`` token embeddings."""
        return self.token_embedding(ids.to(self.token_embedding.weight.device))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Features of whole sentences ``(n, P)``, not normalised: open_clip's ``encode_text``.

        Raises:
            ValueError: a sentence has more tokens than the tower has positions.
        """
        start, end = self.start_end_ids()
        rows = [[start, *self.word_ids(text), end] for text in texts]
        longest = max((len(row) for row in rows), default=1)
        padded = [row + [0] * (longest - len(row)) for row in rows]
        ids = torch.tensor(padded, dtype=torch.int64).reshape(len(rows), longest)
        ends = torch.tensor([len(row) - 1 for row in rows], dtype=torch.int64)
        return self.encode_prompts(self.embed(ids), ends)

    def encode_prompts(self, token_embeddings: Tensor, eot_position: Tensor | int) -> Tensor:
        """Text features of prompts given as embeddings, which may contain learned tokens among the words.

        Args:
            token_embeddings: ``(B, L, D)``, start-of-text first, no position embedding added yet.
            eot_position: ``(B,)`` int64 or one number for all, position of the end-of-text token. Everything after the
                last of them is cut off.

        Returns:
            ``(B, P)``, projected, not normalised.

        Raises:
            ValueError: an end-of-text position outside the prompt, or a prompt longer than the tower allows.
        """
        batch, length, _ = token_embeddings.shape
        device = token_embeddings.device
        eot = torch.as_tensor(eot_position, device=device).expand(batch)
        if batch == 0:
            return token_embeddings.new_zeros(0, self.output_dim)
        longest, positions = int(eot.max()) + 1, self.positional_embedding.shape[0]
        if longest > min(length, positions):
            raise ValueError(
                f"A prompt ends at position {longest - 1}, but there are {length} tokens and the tower has "
                f"{positions} positions; shorten the template or learn fewer tokens."
            )
        dtype = self.transformer.get_cast_dtype()
        tokens = (token_embeddings[:, :longest] + self.positional_embedding[:longest]).to(dtype)
        tokens = self.transformer(tokens, attn_mask=self.attn_mask[:longest, :longest])
        return self._project(self.ln_final(tokens[torch.arange(batch, device=device), eot]))

    def _project(self, features: Tensor) -> Tensor:
        if self.text_projection is None:
            return features
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection(features)
        return features @ self.text_projection

    def _rows(self, ids: list[int], text: str) -> list[int]:
        if self.vocabulary is None:
            return ids
        wanted = torch.tensor(ids, dtype=torch.int64)
        rows = torch.searchsorted(self.vocabulary, wanted).clamp(max=len(self.vocabulary) - 1)
        if not torch.equal(self.vocabulary[rows], wanted):
            missing = wanted[self.vocabulary[rows] != wanted].tolist()
            words = [_tokenizer().decode([token]).strip() for token in missing]
            raise ValueError(
                f"The reduced vocabulary of this CLIP has no token {words} of {text!r}; use other words or a "
                "model with the full token table."
            )
        return rows.tolist()


@cache
def _tokenizer() -> Any:
    """CLIP's byte-pair encoding."""
    from open_clip import SimpleTokenizer

    return SimpleTokenizer()


def build_text_tower(cfg: CfgNode) -> ClipTextTower:
    """The text tower that belongs to the image tower of ``cfg.MODEL.BACKBONE.CLIP``.

    Without pre-trained weights it is a function of ``SEED``, the same after a resume and in a replay; the global
    generator is not changed.
    """
    clip = cfg.MODEL.BACKBONE.CLIP
    description = describe(clip.MODEL)
    weights = clip.PRETRAINED if cfg.MODEL.BACKBONE.PRETRAIN else ""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(cfg.SEED)  # torch.manual_seed would seed every accelerator too
        model = build_open_clip(description, weights)
    return ClipTextTower(model=model, vocabulary=description.vocabulary)
