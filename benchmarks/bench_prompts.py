"""Stage 1 of "Bridging Day and Night": cut prompts against all 77 tokens, and peak memory at DN-Wild's size.

Both step times come from one process, the same prompts and the same towers (ViT-B/16's text tower, random
weights); only their ratio means anything. The peak is the largest resident size of a process of its own that
builds the stage for 106,365 images (features in half precision, as the trainer keeps them), takes two full
steps and then writes every page of the optimizer's state, as a whole epoch would. It includes what the
libraries take.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

import dnreid_plugins  # noqa: F401
from dnreid_plugins.engine.prompt_options import PromptStageOptions
from dnreid_plugins.engine.prompt_stage import PromptStage
from dnreid_plugins.modeling.clip_weights import build_open_clip, describe
from dnreid_plugins.modeling.prompts import PromptLearner
from dnreid_plugins.modeling.text import ClipTextTower

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


def make_stage(text: ClipTextTower, sizes: tuple[int, int], options: PromptStageOptions) -> PromptStage:
    """A stage on random unit features of ``sizes`` day and night images."""
    domains = torch.cat([torch.zeros(sizes[0], dtype=torch.int64), torch.ones(sizes[1], dtype=torch.int64)])
    generator = torch.Generator().manual_seed(0)
    features = torch.empty(len(domains), 1280, dtype=torch.float16)
    for part in features.split(4096):
        part.copy_(F.normalize(torch.randn(part.shape, generator=generator)))
    prompts = PromptLearner(text=text, domains=domains, feature_dim=1280)
    return PromptStage(prompts=prompts, text=text, features=features, options=options)


def time_steps(batch_size: int, repeats: int) -> dict[str, float]:
    """Shortest of ``repeats`` steps with cut prompts and with 77 tokens, taken in turn."""
    model = build_open_clip(describe("ViT-B-16"))
    options = replace(PromptStageOptions(), batch_size=batch_size)
    stages = {
        "cut": make_stage(ClipTextTower(model=model), (256, 256), options),
        "full": make_stage(LongTextTower(model=model), (256, 256), options),
    }
    best = dict.fromkeys(stages, float("inf"))
    gap = (stages["cut"].text_features(8)[:8] - stages["full"].text_features(8)[:8]).abs().max().item()
    for repeat in range(repeats + 1):  # the first is to warm up
        for name, stage in stages.items():
            start = time.perf_counter()
            stage.train_step()
            if repeat:
                best[name] = min(best[name], time.perf_counter() - start)
    return {
        "seconds_cut": best["cut"],
        "seconds_77": best["full"],
        "ratio": best["full"] / best["cut"],
        "largest_difference": gap,
    }


def measure_peak(sizes: tuple[int, int], first_moment: str) -> dict[str, float]:
    """Largest resident size of this process, in GiB, after building a stage and two steps."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = ClipTextTower(model=build_open_clip(describe("ViT-B-16")))
    stage = make_stage(text, sizes, replace(PromptStageOptions(), first_moment=first_moment))
    for _ in range(2):
        stage.train_step()
    for optimizer in stage.optimizers:
        for state in optimizer.state.values():
            for value in state.values():
                value.mul_(1)  # writes every page; zeros are handed out without memory behind them
    stage.train_step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gib = 1024**2  # ru_maxrss is in KiB on Linux
    return {f"peak_gib_{first_moment}": peak / gib, "gib_after_imports": before / gib}


def main(batch_size: int = 16, repeats: int = 3, images: tuple[int, int] = DN_WILD) -> dict[str, float]:
    """Step times of both lengths, their ratio, and the peak memory at ``images``."""
    result = {**time_steps(batch_size, repeats), "images": float(sum(images))}
    for first_moment in ("float32", "bfloat16"):
        command = [sys.executable, __file__, "--peak", *map(str, images), "--first-moment", first_moment]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        result |= json.loads(finished.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16, help="images per domain in the timed step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", type=int, nargs=2, metavar=("DAY", "NIGHT"), help="only measure memory")
    parser.add_argument("--first-moment", default="float32")
    args = parser.parse_args()
    if args.peak:
        print(json.dumps(measure_peak(tuple(args.peak), args.first_moment)))
    else:
        print(json.dumps(main(args.batch_size, args.repeats), indent=2))
