"""Ranking a gallery for every query, and what is measured of it."""
