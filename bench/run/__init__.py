"""A benchmark run: the engines' processes, taken in turns."""
