"""What stands in for a broken piece of fast-reid; compat.py alone knows how old fast-reid is."""
