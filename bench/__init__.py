"""The benchmarks: how fast an engine is on this machine, for this model, with a record of what was measured on what."""
