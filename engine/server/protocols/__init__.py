"""The protocols that clients speak, a file for each: fields of requests, and the way from results to answers."""
