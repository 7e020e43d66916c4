"""The user's own texts: read for calibration, or to measure the graphs of an artifact on."""
