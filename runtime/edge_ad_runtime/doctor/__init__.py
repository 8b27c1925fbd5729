"""Find what keeps a device from scoring, and say how to repair it."""
