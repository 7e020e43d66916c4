"""A corpus: a file of texts, from text to labels."""
