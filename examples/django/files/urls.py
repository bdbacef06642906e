"""The site's addresses."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from files import views

urlpatterns = [
    path("", views.index, name="index"),
    path("login", LoginView.as_view(), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("files", views.upload, name="upload"),
    path("files/<str:name>", views.download, name="download"),
    path("stream", views.stream, name="stream"),
]
