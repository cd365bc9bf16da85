"""Measuring: accuracy on recordings and on streams."""
