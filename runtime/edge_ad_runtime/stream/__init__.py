"""A stream: cameras, models, triggers, alarms and outputs, from configuration to summary."""
