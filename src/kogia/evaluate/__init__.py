"""Measuring: held-out problems, many samples, honest intervals."""
