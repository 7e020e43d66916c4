"""The checkpoint: its configuration, its tensors, and the warnings about it."""
