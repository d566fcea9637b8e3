"""Which address is whose."""

from django.contrib.auth.views import LoginView
from django.urls import path

from shop import views

urlpatterns = [
    path("", views.home, name="home"),
    path("login", LoginView.as_view(template_name="login.html"), name="login"),
    path("jobs/<int:job_id>/approve", views.approve, name="approve"),
    path("jobs/<int:job_id>/backjob", views.backjob, name="backjob"),
]
