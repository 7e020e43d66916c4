"""Requests as they arrive: connections, bodies and fields, each with its limits."""
