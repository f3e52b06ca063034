"""Replacements for broken parts of fast-reid; only compat.py depends on fast-reid's version."""
