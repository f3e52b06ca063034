"""One process among several on one machine: groups, files, signals, generators, configs. Nothing of re-identification."""
