"""Who among the clients behaves like a program that hides it, and why; docs/bots.md tells it to people."""
