"""Statistics: paired ratios, intervals and timers."""
