"""What the three services share: settings, logs, signals, readiness, and connections to the broker."""
