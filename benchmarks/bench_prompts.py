"""Stage 1 of "Bridging Day and Night": cut prompts against all 77 tokens, and peak memory at DN-Wild's size.

Both step times come from one process, the same prompts and the same towers (ViT-B/16's text tower, random
weights); only their ratio means anything. The peak is the largest resident size of a process of its own that
builds the stage for 106,365 images (features in half precision, as the trainer keeps them), takes two full
steps and then writes every page of the optimizer's state, as a whole epoch would. It includes what the
libraries take.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from measure import Job, Report, Work, finish, interleaved, parser, seconds_of
from torch import Tensor

import dnreid_plugins  # noqa: F401
from dnreid_plugins.engine.stages.prompt_options import PromptStageOptions
from dnreid_plugins.engine.stages.prompt_training import PromptStage
from dnreid_plugins.modeling.clip.prompts import PromptLearner
from dnreid_plugins.modeling.clip.text_tower import ClipTextTower
from dnreid_plugins.modeling.clip.weights import MINI_CLIP, build_open_clip, describe

DN_WILD = (70_981, 35_384)


class LongTextTower(ClipTextTower):
    """As the released code does it: every prompt padded to all positions of the tower."""

    def encode_prompts(self, token_embeddings: Tensor, eot_position: Tensor | int) -> Tensor:
        batch, length, width = token_embeddings.shape
        longest = self.positional_embedding.shape[0]
        padding = token_embeddings.new_zeros(batch, longest - length, width)
        tokens = torch.cat([token_embeddings, padding], dim=1) + self.positional_embedding
        tokens = self.ln_final(self.transformer(tokens, attn_mask=self.attn_mask))
        return self._project(tokens[torch.arange(batch), torch.as_tensor(eot_position)])


def random_towers(name: str) -> dict[str, Any]:
    """What a text tower of the CLIP model ``name`` is made from."""
    description = describe(name)
    return {"model": build_open_clip(description), "vocabulary": description.vocabulary}


def make_stage(text: ClipTextTower, sizes: tuple[int, int], options: PromptStageOptions) -> PromptStage:
    """A stage on random unit features of ``sizes`` day and night images."""
    domains = torch.cat([torch.zeros(sizes[0], dtype=torch.int64), torch.ones(sizes[1], dtype=torch.int64)])
    generator = torch.Generator().manual_seed(0)
    features = torch.empty(len(domains), 1280, dtype=torch.float16)
    for part in features.split(4096):
        part.copy_(F.normalize(torch.randn(part.shape, generator=generator)))
    prompts = PromptLearner(text=text, domains=domains, feature_dim=1280)
    return PromptStage(prompts=prompts, text=text, features=features, options=options)


def time_steps(model_name: str, batch_size: int, repeats: int) -> dict[str, float]:
    """Shortest of ``repeats`` steps with cut prompts and with 77 tokens, taken in turn."""
    towers = random_towers(model_name)
    options = replace(PromptStageOptions(), batch_size=batch_size)
    stages = {
        "cut": make_stage(ClipTextTower(**towers), (256, 256), options),
        "full": make_stage(LongTextTower(**towers), (256, 256), options),
    }
    best = dict.fromkeys(stages, float("inf"))
    gap = (stages["cut"].text_features(8)[:8] - stages["full"].text_features(8)[:8]).abs().max().item()
    for repeat in range(repeats + 1):  # the first is to warm up
        for name, stage in stages.items():
            seconds = seconds_of(stage.train_step)
            if repeat:
                best[name] = min(best[name], seconds)
    return {
        "seconds_cut": best["cut"],
        "seconds_77": best["full"],
        "ratio": best["full"] / best["cut"],
        "largest_difference": gap,
    }


def peak(model_name: str, sizes: tuple[int, int], first_moment: str) -> Work:
    """Job: build a stage and take two steps."""

    def work() -> Report:
        text = ClipTextTower(**random_towers(model_name))
        stage = make_stage(text, sizes, replace(PromptStageOptions(), first_moment=first_moment))
        for _ in range(2):
            stage.train_step()
        for optimizer in stage.optimizers:
            for state in optimizer.state.values():
                for value in state.values():
                    value.mul_(1)  # writes every page; zeros are handed out without memory behind them
        stage.train_step()
        return {}

    return work


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--batch-size", type=int, default=16, help="images per domain in the timed step")
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    model_name, sizes = "ViT-B-16", DN_WILD
    if args.quick:
        model_name, sizes, args.batch_size, args.repeats = MINI_CLIP, (40, 30), 2, 1
    times = time_steps(model_name, args.batch_size, args.repeats)
    moments = ("float32",) if args.quick else ("float32", "bfloat16")
    jobs = {
        name: Job(__file__, "peak", {"model_name": model_name, "sizes": sizes, "first_moment": name})
        for name in moments
    }
    found = interleaved(jobs, args)
    memory = [
        {
            "first moment": name,
            "images": sum(sizes),
            "peak GiB": one["peak_gib"],
            "of it new GiB": one["growth_gib"],
        }
        for name, one in found.items()
    ]
    row = {"cut s": times["seconds_cut"], "77 tokens s": times["seconds_77"], "ratio": times["ratio"]}
    finish("prompts", args, {"One step": [row], "Memory": memory}, {"times": times, "memory": found})


if __name__ == "__main__":
    main()
