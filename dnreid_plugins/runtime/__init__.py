"""One process among several, on one machine; nothing here knows of re-identification."""
