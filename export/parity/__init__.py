"""Parity checks: the float64 reference, and the comparison of graphs and tokenizers with it."""
