"""``fusedbert bench load --http``: servers of a model, each a process of its own, and a client that is one too."""
