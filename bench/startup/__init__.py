"""Startup: from a fresh process to its first answer."""
