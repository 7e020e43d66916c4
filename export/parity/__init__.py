"""Parity: the float64 reference, and the gates that a graph has to pass."""
