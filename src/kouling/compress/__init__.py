"""Smaller models from trained ones: pruning, blocks of zeros, quantisation."""
