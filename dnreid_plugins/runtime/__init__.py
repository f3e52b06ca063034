"""Processes, files, signals, logs and config sections; nothing here is specific to re-identification."""
