"""``fusedbert bench rank``: a query and its documents, from texts to the ranking."""
