"""The books: each request a debit, each ending a credit, in a database. At rest they balance to zero."""
