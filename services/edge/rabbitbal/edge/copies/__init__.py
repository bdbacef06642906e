"""One request to several workers: first, all, shadow, hedge. Each copy is a request of its own (decision 11)."""

from rabbitbal.edge.copies.copies import Copies

__all__ = ["Copies"]
