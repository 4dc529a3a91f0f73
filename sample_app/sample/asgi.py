"""Entry point of gunicorn's asgi workers: `app: sample.asgi`, `worker_class: asgi`."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sample.settings")

application = get_asgi_application()
