"""python -m files.database: makes the tables and the user `demo`, as far as they are not there."""

import os

import django
from django.core.management import call_command

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402 - there are no models before setup

call_command("migrate", verbosity=0)
user, _ = get_user_model().objects.get_or_create(username="demo")
if not user.check_password(os.environ["DEMO_PASSWORD"]):
    user.set_password(os.environ["DEMO_PASSWORD"])
    user.save()
