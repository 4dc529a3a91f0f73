"""The project: settings, URLs, entry points.  The Celery app is imported here so that `shared_task` binds to it."""

from __future__ import annotations

from sample.celery import app as celery_app

__all__ = ["celery_app"]
