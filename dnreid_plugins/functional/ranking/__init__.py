"""Ranking a gallery for every query, and the metrics of the ranking."""
