"""Load: arrivals at a rate, and the latency that follows."""
