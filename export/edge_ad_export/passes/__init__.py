"""Rewrites of an exported graph that keep what it computes."""
