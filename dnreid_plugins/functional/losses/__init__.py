"""Losses as functions of features and prototypes."""
