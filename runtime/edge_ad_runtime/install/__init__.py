"""Put a new model file in place of the old one, if it proves itself, and go back if it does not."""
