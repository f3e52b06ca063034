"""CLIP: image tower, text tower, weights, necks, and learned prompts."""
