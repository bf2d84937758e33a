# SPDX-License-Identifier: Apache-2.0
"""A Django site in one file: gunicorn app:application, and python3 app.py COMMAND for manage.py. In
a project of yours only the settings that speak of narwhal are of interest."""
import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.template import engines
from django.urls import path

HERE = os.path.dirname(os.path.abspath(__file__))

settings.configure(
    # All instances need the same one. Without it a session of one is nothing to the other.
    SECRET_KEY=os.environ.get("SECRET_KEY") or "only-for-trying-it-out",
    ROOT_URLCONF=__name__,
    # narwhal passes the client's Host on. Name yours here.
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    # Safe, because narwhal writes this field itself and drops what a client says in it.
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    INSTALLED_APPS=["django.contrib.staticfiles"],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware",
                "django.middleware.common.CommonMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    STATIC_URL="/static/",  # [route:static] in narwhal.ini
    STATIC_ROOT=os.path.join(HERE, "static"),
    STATICFILES_DIRS=[os.path.join(HERE, "assets")],
)

PAGE = """<!doctype html><title>Django</title>{% load static %}
<link rel="stylesheet" href="{% static 'style.css' %}">
<form method="post">{% csrf_token %}<input name="name"><button>Say hello</button></form>
{% if name %}<p>Hello, {{ name }}!</p>{% endif %}
"""


def page(request):
    get_token(request)
    return HttpResponse(engines["django"].from_string(PAGE).render(
        {"name": request.POST.get("name")}, request))


urlpatterns = [path("", page)]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
