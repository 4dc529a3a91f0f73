"""All URLs live in the one app."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("", include("library.urls"))]
