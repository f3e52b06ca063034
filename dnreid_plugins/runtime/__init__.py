"""Processes, files, signals, logs and config sections; nothing here is specific to re-identification."""

#: The version of the package.
VERSION = "0.1.0"
