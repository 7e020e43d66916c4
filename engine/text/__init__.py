"""Texts: checks, tokens, windows over long texts, and scores."""
