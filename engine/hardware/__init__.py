"""The machine: its processor, its GPUs, and the packages that are installed on it."""
