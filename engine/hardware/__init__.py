"""The machine: processor, GPUs, disk, and installed packages."""
