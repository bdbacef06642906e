"""For every test: examples are not timed, as machines are noisy and a slow one proves nothing."""

from hypothesis import settings

settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")
