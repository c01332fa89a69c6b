"""The Celery application, configured as the web application configures it: JSON only, mail tasks routed to `emails`.

`cleanup_old_notifications` has no route on purpose: Celery then sends it to the list `celery`.
"""

import os

from celery import Celery

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
TASKS = "backend_app.core.celery_tasks"

celery_app = Celery("hirebahamas", broker=REDIS_URL, backend=REDIS_URL, include=[TASKS])

celery_app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    timezone="UTC",
    enable_utc=True,
    task_send_sent_event=True,
    result_expires=3600,
    task_routes={
        f"{TASKS}.{name}": {"queue": "emails"}
        for name in (
            "send_email_task",
            "send_welcome_email",
            "send_job_application_email",
            "send_message_notification_email",
            "send_password_reset_email",
        )
    },
)
