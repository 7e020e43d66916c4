"""Latency by shape: from token ids to logits."""
