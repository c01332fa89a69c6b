"""The signatures of the RQ jobs. The work is done by jobsd: no body here may ever run."""


def must_run_in_jobsd():
    raise RuntimeError("must run in jobsd")


# Queue `notifications`.


def send_push_notification_job(user_id, title, body, notification_type, data=None):
    must_run_in_jobsd()


def send_new_follower_notification_job(follower_id, follower_name, followed_user_id):
    must_run_in_jobsd()


def send_new_like_notification_job(liker_id, liker_name, post_owner_id, post_id):
    must_run_in_jobsd()


def send_new_comment_notification_job(commenter_id, commenter_name, post_owner_id, post_id, comment_preview):
    must_run_in_jobsd()


def send_new_message_notification_job(sender_id, sender_name, receiver_id, message_preview):
    must_run_in_jobsd()


# Queue `analytics`.


def track_user_event_job(user_id, event_type, event_data=None):
    must_run_in_jobsd()


def aggregate_user_stats_job(user_id):
    must_run_in_jobsd()


# Queue `video_processing`.


def process_video_job(video_id, video_path, user_id, processing_options=None):
    must_run_in_jobsd()


def generate_video_thumbnail_job(video_id, video_path, timestamp="00:00:01.000"):
    must_run_in_jobsd()
