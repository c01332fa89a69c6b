//! The channels and keys over which Celery's clients and workers speak of themselves, as kombu 5.4's Redis transport names
//! them by default: events, remote control, its replies, and the table of bindings.

/// What kombu puts between the parts of a binding.
const SEPARATOR: &str = "\u{6}\u{16}";
/// The exchange of remote control; a worker's own queue there is called after it.
const PIDBOX: &str = "celery.pidbox";
/// The exchange of replies to it.
pub(super) const REPLIES: &str = "reply.celery.pidbox";

/// What a channel of a fanout exchange begins with: pub/sub knows no databases, so kombu puts their number before it.
fn fanout(database: i64) -> String {
    format!("/{database}.")
}

/// Where commands to all workers are published.
pub(super) fn control(database: i64) -> String {
    format!("{}{PIDBOX}", fanout(database))
}

/// Where events of a kind are published.
pub(super) fn events(database: i64, routing_key: &str) -> String {
    format!("{}celeryev/{routing_key}", fanout(database))
}

/// LIST: the replies to one client.
pub(super) fn replies(client: &str) -> String {
    format!("{client}.{REPLIES}")
}

/// SET: which queues hear an exchange.
fn bindings(exchange: &str) -> String {
    format!("_kombu.binding.{exchange}")
}

/// The set, and its member that says that a list of tasks is served.
pub(super) fn task_binding(list: &str) -> (String, String) {
    (bindings(list), format!("{list}{SEPARATOR}{SEPARATOR}{list}"))
}

/// The set, and its member that says that a worker hears commands.
pub(super) fn control_binding(worker: &str) -> (String, String) {
    (bindings(PIDBOX), format!("{SEPARATOR}{SEPARATOR}{worker}.{PIDBOX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As captured from Celery 5.4 on database 3.
    #[test]
    fn names_are_those_of_kombu() {
        assert_eq!(control(3), "/3.celery.pidbox");
        assert_eq!(events(3, "task.multi"), "/3.celeryev/task.multi");
        assert_eq!(replies("7850e29f"), "7850e29f.reply.celery.pidbox");
        assert_eq!(
            task_binding("emails"),
            ("_kombu.binding.emails".to_owned(), "emails\u{6}\u{16}\u{6}\u{16}emails".to_owned())
        );
        assert_eq!(control_binding("ref@vm").1, "\u{6}\u{16}\u{6}\u{16}ref@vm.celery.pidbox");
    }
}
