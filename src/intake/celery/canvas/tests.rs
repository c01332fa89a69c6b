//! What follows a task, message by message.
