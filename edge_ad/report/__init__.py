"""The report of a run: one HTML file that a customer can be shown."""
