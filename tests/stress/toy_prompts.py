"""Stage 1 of Bridging Day and Night on a toy text tower, with a checkpoint after every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from dnreid_plugins.engine import files
from dnreid_plugins.engine.prompt_options import PromptStageOptions
from dnreid_plugins.engine.prompt_stage import PromptStage
from dnreid_plugins.modeling.clip_weights import ClipDescription, build_open_clip
from dnreid_plugins.modeling.prompts import PromptLearner
from dnreid_plugins.modeling.text import ClipTextTower

TOY = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 30, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def train_prompts(opts: list[Any], resume: bool, trap: Any) -> None:
    """``opts`` is the folder; the last state is in ``model_final.pth`` there."""
    folder = Path(opts[0])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    text = ClipTextTower(model=build_open_clip(ClipDescription("toy", TOY)))
    domains = torch.tensor([0] * 9 + [1] * 6)
    features = F.normalize(torch.randn(15, 28, generator=torch.Generator().manual_seed(1)))
    prompts = PromptLearner(text=text, domains=domains, feature_dim=28, bias_hidden=4)
    options = PromptStageOptions(epochs=6, batch_size=4, lr=0.01, warmup_epochs=1)
    stage = PromptStage(prompts=prompts, text=text, features=features, options=options)
    state = folder / "stage1.pth"
    if resume and state.is_file():
        stage.load_state_dict(torch.load(state, weights_only=True))
    trap.around(stage, "train_step", "iteration")
    trap.in_files()

    def keep(stage: PromptStage) -> None:
        files.write_atomically(state, lambda file: torch.save(stage.state_dict(), file))

    stage.run(keep)
    final = {"model": stage.state_dict()["prompts"], "text": stage.text_features()}
    files.write_atomically(folder / "model_final.pth", lambda file: torch.save(final, file))
