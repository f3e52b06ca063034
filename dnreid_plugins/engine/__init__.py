"""The run: trainer, step, label phase, stages, checkpoints, pre-flight checks and hooks."""
