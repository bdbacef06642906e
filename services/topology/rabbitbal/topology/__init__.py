"""One-shot jobs that prepare the broker before anything else starts: its users, then its objects."""
