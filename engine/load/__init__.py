"""Loading: from MODEL to an open graph, checked and ready to run."""
