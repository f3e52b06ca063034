"""Neighbours and clusters of unit rows: exact k-NN search, k-reciprocal Jaccard distance, DBSCAN."""
