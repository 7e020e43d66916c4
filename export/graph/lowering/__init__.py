"""Lowerings: the nodes that BERT's steps become on each target."""
