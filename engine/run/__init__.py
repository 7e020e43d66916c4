"""Runs of a graph: batches of token ids to logits."""
