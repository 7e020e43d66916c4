"""A benchmark run: the engines' processes, their model, the check of their answers, and interleaved measurements."""
