"""Load: texts that arrive at a rate, and the latency that follows."""
