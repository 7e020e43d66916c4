"""Tasks of a classifier, one a file, with the names and results of the libraries that people come from."""
