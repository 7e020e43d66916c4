"""Running: rows of token ids in batches through a graph."""
