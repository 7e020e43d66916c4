"""Reports: tables, plots and the page."""
