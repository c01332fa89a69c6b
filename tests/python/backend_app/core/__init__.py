"""Celery for mail, RQ for notifications, analytics and video; both on the Redis of `REDIS_URL`."""
