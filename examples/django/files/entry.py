"""What RABBITBAL_APP names: the application as ASGI and as WSGI."""

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

asgi_application = get_asgi_application()
wsgi_application = get_wsgi_application()
