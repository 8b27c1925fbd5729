"""A model file: its metadata, its session, and the verdicts that it gives."""
