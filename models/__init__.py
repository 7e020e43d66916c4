"""Checkpoints that ship with fusedbert, as data: ``sst2-mini`` is the embedded default."""
