"""Which routing key and which policies a request has: a table of ordered rules, read from a file."""
