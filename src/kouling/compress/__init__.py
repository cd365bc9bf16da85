"""Smaller models out of trained ones: quantised, pruned, taught, until they keep a budget."""
