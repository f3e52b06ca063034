"""CLIP: image tower, text tower, weights, necks, and the prompts that are learned for it."""
