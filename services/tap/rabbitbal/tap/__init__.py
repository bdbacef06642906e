"""The tap: reads copies of requests and responses off the broker. Nothing waits for it."""
