"""Checkpoints of random weights in the shapes of known models, for benchmarks."""
