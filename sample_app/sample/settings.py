"""Settings: sensible on a laptop without any environment, and every one of them that differs elsewhere is a variable.

SAMPLE_DATA_DIR  where the SQLite file and the generated key live (default: .run beside sample_app)
SECRET_KEY       default: generated once, kept in the data directory
DEBUG            default 0
ALLOWED_HOSTS    comma-separated; default: loopback names only
DATABASE_URL     e.g. postgres://user:password@127.0.0.1/library; default: SQLite with WAL
REDIS_URL        broker and results; default redis://127.0.0.1:6390/0
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from sample import environment

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("SAMPLE_DATA_DIR") or BASE_DIR.parent / ".run").absolute()
DATA_DIR.mkdir(parents=True, exist_ok=True)

SECRET_KEY = environment.secret_key(os.environ, DATA_DIR)
DEBUG = environment.flag(os.environ, "DEBUG", default=False)
# Loopback names only: a web page that points its own name at 127.0.0.1 (DNS rebinding) is answered with 400.
ALLOWED_HOSTS = environment.words(os.environ, "ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "library",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "library.served.ServedByMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "sample.urls"
WSGI_APPLICATION = "sample.wsgi.application"
ASGI_APPLICATION = "sample.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.messages.context_processors.messages",
                "library.served.served_by",
            ]
        },
    }
]
# One-time messages ride in a cookie: no session, so no query of its own on any page.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"

DATABASES = {"default": environment.database(os.environ, DATA_DIR)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-us"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

# Loopback is plain http, so cookies can't be Secure here; they stay with this site and out of scripts' reach.
CSRF_COOKIE_SAMESITE = "Strict"
CSRF_COOKIE_HTTPONLY = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}

# --- Celery ----------------------------------------------------------------------------------------------------------
REDIS_URL = os.environ.get("REDIS_URL") or "redis://127.0.0.1:6390/0"
CELERY_BROKER_URL = REDIS_URL
CELERY_RESULT_BACKEND = f"sample.results.PolledRedisBackend+{REDIS_URL}"
CELERY_RESULT_EXPIRES = timedelta(hours=1)
# A task that ends while Redis restarts waits for it to tell its result: about 2 s in all, in growing pauses.
CELERY_RESULT_BACKEND_ALWAYS_RETRY = True
CELERY_RESULT_BACKEND_MAX_RETRIES = 8
CELERY_REDIS_SOCKET_CONNECT_TIMEOUT = 5.0
CELERY_REDIS_SOCKET_TIMEOUT = 5.0
CELERY_TIMEZONE = TIME_ZONE
# Workers log through Django's handler like everybody else, so that every line looks the same.
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

# A message is acknowledged when its task has ended, not when it has begun: a worker that dies hands its task back.
# So every task here must bear being run twice (see library/tasks.py).
CELERY_TASK_ACKS_LATE = True
# The same for one pool process that is killed (out of memory) while its main process lives on; without this the main
# process acknowledges the task as failed, and it is lost.
CELERY_TASK_REJECT_ON_WORKER_LOST = True
# Hold no more messages than there are pool processes: what one busy worker has fetched no idle one can run.
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# No task runs longer than this: a soft limit raises inside it, a hard one kills its process.
CELERY_TASK_SOFT_TIME_LIMIT = 10 * 60
CELERY_TASK_TIME_LIMIT = 11 * 60
CELERY_TASK_TRACK_STARTED = True
# visibility_timeout: a message that was fetched and not acknowledged for so long is delivered again: at least twice the
# longest task, or a slow task would run twice at once.  The rest bounds what a dead connection can cost.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 2 * CELERY_TASK_TIME_LIMIT,
    "socket_connect_timeout": 5,
    "socket_timeout": 10,
    "socket_keepalive": True,
    "health_check_interval": 5,
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# A request that queues a task while Redis is away fails within about a second instead of hanging.
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}
CELERY_BEAT_SCHEDULE = {
    "refresh-stats": {"task": "library.tasks.refresh_stats", "schedule": 10.0, "options": {"expires": 30}},
}
