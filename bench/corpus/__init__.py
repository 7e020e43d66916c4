"""A corpus: from texts to labels."""
