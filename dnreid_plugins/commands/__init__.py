"""The command line `dnreid`: one file per command."""
