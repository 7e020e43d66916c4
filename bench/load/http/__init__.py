"""``fusedbert bench load --http``: servers of a model, each in its own process, and a client that has one too."""
