"""The algorithms: pure functions of tensors. No config, registry, file, logging or global state."""
