"""The signatures of the mail tasks and the nightly clean-up. The work is done by jobsd: no body here may ever run."""

from .celery_app import celery_app


def must_run_in_jobsd():
    raise RuntimeError("must run in jobsd")


@celery_app.task(bind=True, max_retries=3, default_retry_delay=300)
def send_email_task(self, recipient_email, subject, body, template=None, context=None):
    must_run_in_jobsd()


@celery_app.task
def send_welcome_email(user_email, user_name, username):
    must_run_in_jobsd()


@celery_app.task
def send_job_application_email(employer_email, employer_name, job_title, applicant_name, applicant_email, job_id):
    must_run_in_jobsd()


@celery_app.task
def send_message_notification_email(recipient_email, recipient_name, sender_name, message_preview):
    must_run_in_jobsd()


@celery_app.task
def send_password_reset_email(user_email, user_name, reset_token):
    must_run_in_jobsd()


@celery_app.task
def cleanup_old_notifications():
    must_run_in_jobsd()
