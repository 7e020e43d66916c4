"""Startup: a fresh process up to its first answer."""
