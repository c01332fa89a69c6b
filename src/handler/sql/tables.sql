-- The app's tables as far as the shipped tasks need them, for a daemon that runs without the app's own database.
-- Ids have INTEGER affinity: a number given as text becomes a number, any other text stays what it is.

CREATE TABLE IF NOT EXISTS notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    actor_id INTEGER,
    notification_type TEXT NOT NULL,
    content TEXT NOT NULL,
    related_id INTEGER,
    is_read BOOLEAN NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX IF NOT EXISTS notifications_by_user ON notifications (user_id, created_at);
CREATE INDEX IF NOT EXISTS notifications_by_age ON notifications (is_read, created_at);

CREATE TABLE IF NOT EXISTS user_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT,
    user_id INTEGER NOT NULL,
    event_type TEXT NOT NULL,
    event_data JSON,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX IF NOT EXISTS user_events_by_user ON user_events (user_id, created_at);
CREATE INDEX IF NOT EXISTS user_events_by_time ON user_events (created_at);
CREATE UNIQUE INDEX IF NOT EXISTS user_events_by_job ON user_events (job_id);

CREATE TABLE IF NOT EXISTS user_events_hourly (
    hour TEXT NOT NULL,
    event_type TEXT NOT NULL,
    events INTEGER NOT NULL,
    users INTEGER NOT NULL,
    PRIMARY KEY (hour, event_type)
);

CREATE TABLE IF NOT EXISTS user_events_daily (
    day TEXT NOT NULL,
    event_type TEXT NOT NULL,
    events INTEGER NOT NULL,
    users INTEGER NOT NULL,
    PRIMARY KEY (day, event_type)
);

CREATE TABLE IF NOT EXISTS device_tokens (
    token TEXT PRIMARY KEY,
    user_id INTEGER NOT NULL,
    platform TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX IF NOT EXISTS device_tokens_by_user ON device_tokens (user_id);

CREATE TABLE IF NOT EXISTS posts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    content TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX IF NOT EXISTS posts_by_user ON posts (user_id);

CREATE TABLE IF NOT EXISTS likes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    post_id INTEGER NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UNIQUE (user_id, post_id)
);
CREATE INDEX IF NOT EXISTS likes_by_post ON likes (post_id);

CREATE TABLE IF NOT EXISTS comments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    post_id INTEGER NOT NULL,
    content TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX IF NOT EXISTS comments_by_post ON comments (post_id);

CREATE TABLE IF NOT EXISTS follows (
    follower_id INTEGER NOT NULL,
    followed_id INTEGER NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (follower_id, followed_id)
);
CREATE INDEX IF NOT EXISTS follows_by_followed ON follows (followed_id);

CREATE TABLE IF NOT EXISTS user_stats (
    user_id INTEGER NOT NULL UNIQUE,
    posts INTEGER NOT NULL DEFAULT 0,
    followers INTEGER NOT NULL DEFAULT 0,
    following INTEGER NOT NULL DEFAULT 0,
    likes_received INTEGER NOT NULL DEFAULT 0,
    comments_received INTEGER NOT NULL DEFAULT 0,
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
