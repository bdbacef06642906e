"""What a command ends with when it cannot do what it was asked."""


class Failed(Exception):
    """It was not done. The text is for the operator. Status 1."""


class Misused(Exception):
    """It makes no sense as it was written. Status 2."""
