"""Texts: checked, tokenized, cut into windows; and the scores that come back."""
