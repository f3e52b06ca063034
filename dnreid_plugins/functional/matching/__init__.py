"""Which cluster of one domain goes with which of the other."""
