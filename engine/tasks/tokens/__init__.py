"""Token classification: from the labels of tokens to the spans of entities."""
