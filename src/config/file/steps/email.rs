//! A step that sends a mail: `email = { to = …, subject = …, template = … }`.

use super::super::diagnostic::{hint, quoted};
use super::super::document::{Item, Table};
use super::super::email::mailbox;
use super::super::scope::Scope;
use super::{Surroundings, header_names};
use crate::config::{EmailStep, Step};

pub(super) fn step(item: &Item<'_>, scope: &Scope<'_>, around: &Surroundings<'_>) -> Option<Step> {
    let table = item.table()?;
    let to = table.required("to", "add the recipient, as in to = \"{{ user_email }}\"");
    let subject = table.required("subject", "add subject = \"…\"");
    content(&table, around);
    addresses(&table);
    unsubscribe_once(&table);
    let to = to.and_then(|item| scope.template(&item));
    let subject = subject.and_then(|item| scope.template(&item));
    let (cc, bcc) = (table.rendered_value("cc", scope), table.rendered_value("bcc", scope));
    let (from, reply_to) = (table.rendered("from", scope), table.rendered("reply_to", scope));
    let (template, context) = (table.rendered("template", scope), table.rendered_value("context", scope));
    let (html, text) = (table.rendered("html", scope), table.rendered("text", scope));
    let headers = table.rendered_table("headers", scope);
    let unsubscribe = table.rendered_value("unsubscribe", scope);
    let attachments = table.rendered_value("attachments", scope);
    header_names(&table);
    table.close();
    Some(Step::Email(Box::new(EmailStep {
        to: to?,
        cc,
        bcc,
        subject: subject?,
        template,
        context,
        html,
        text,
        from,
        reply_to,
        headers,
        unsubscribe,
        attachments,
    })))
}

/// What the mail says and carries.
fn content(table: &Table<'_>, around: &Surroundings<'_>) {
    if let Some(item) = table.get("template") {
        template_exists(&item, around.mail_templates);
    }
    if !["template", "html", "text"].iter().any(|key| table.has(key)) {
        table.doc.error(
            &table.place,
            "the mail has no content",
            "add template = \"NAME\", html = \"…\" or text = \"…\"",
        );
    }
    if let (Some(item), false) = (table.get("attachments"), around.attachment_roots) {
        item.error(
            "an attachment, but [email] names no folder to attach from",
            "add attachment_roots = [\"/srv/files\"] to [email]",
        );
    }
}

/// Only a name that no argument changes can be looked up now.
fn template_exists(item: &Item<'_>, known: &[String]) {
    let Some(name) = item.value.as_str().filter(|name| !is_filled_in(name)) else { return };
    if known.iter().any(|known| known == name) {
        return;
    }
    let help = hint(name, "mail template", known.iter().map(String::as_str));
    item.error(format!("there is no mail template {}", quoted(name)), help);
}

/// Addresses that no argument changes can be read now.
fn addresses(table: &Table<'_>) {
    let one = ["to", "from", "reply_to"].into_iter().filter_map(|key| table.get(key));
    let lists = ["cc", "bcc"].into_iter().filter_map(|key| table.get(key));
    let each = lists.flat_map(|item| match item.value.is_array() {
        true => item.array("an array of addresses").unwrap_or_default(),
        false => vec![item],
    });
    for item in one.chain(each) {
        if item.value.as_str().is_some_and(|text| !is_filled_in(text)) {
            mailbox(&item);
        }
    }
}

fn unsubscribe_once(table: &Table<'_>) {
    let headers = table.get("headers").filter(|item| item.value.is_table()).and_then(|item| item.table());
    let by_hand = headers.into_iter().flat_map(|headers| headers.entries());
    let by_hand = by_hand.map(|(key, _)| key).find(|key| key.name.to_ascii_lowercase().starts_with("list-unsubscribe"));
    if let (Some(key), true) = (by_hand, table.has("unsubscribe")) {
        table.doc.error(
            &key.place,
            format!("`{}` and `unsubscribe` are both given", key.name),
            "keep `unsubscribe`; it writes List-Unsubscribe and List-Unsubscribe-Post",
        );
    }
}

fn is_filled_in(text: &str) -> bool {
    ["{{", "{%", "${"].iter().any(|open| text.contains(open))
}
