"""The one exception of the contract."""


class WireError(ValueError):
    """A message that does not follow docs/wire-format.md. The text says what is wrong and is safe to log."""
