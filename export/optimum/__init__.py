"""The route through optimum, for architectures that have no builder here."""
