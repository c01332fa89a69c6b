//! Steps that run a program: which one, as whom, within which limits.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::quoted;
use super::document::{Item, Table};
use super::scalar::DAY;
use super::scope::Scope;
use crate::config::{ExecLimits, ExecStep, ExecUser, Step};

/// Longest entry of the user database that is read, in bytes.
const LONGEST_ENTRY: usize = 64 * 1024;

/// A step that runs a program.
pub(super) fn step(item: &Item<'_>, scope: &Scope<'_>) -> Option<Step> {
    let table = item.table()?;
    let program = table.required("program", "add the absolute path of the program");
    let program = program.and_then(|item| {
        let path = PathBuf::from(item.filled_text("an absolute path such as \"/usr/bin/true\"")?.text);
        if !path.is_absolute() {
            item.error(
                format!("{} is not an absolute path", quoted(&path.to_string_lossy())),
                "write the whole path; there is no shell and no search",
            );
        }
        Some(path)
    });
    let args = table.get("args").and_then(|item| item.array("an array such as [\"--id\", \"{{ user_id }}\"]"));
    let args = args.unwrap_or_default().iter().filter_map(|item| scope.template(item)).collect();
    let env = table.get("env").map(|item| item.texts("[\"HOME\", \"DATABASE_URL\"]")).unwrap_or_default();
    let dir = table.path("dir", "/var/lib/jobsd");
    let user = user(&table);
    let limits = limits(&table.table("limits"));
    let allow_options = table.boolean("allow_options", false);
    table.close();
    let env = env.into_iter().map(|text| text.text).collect();
    Some(Step::Exec(ExecStep { program: program?, args, env, dir, user, limits, allow_options }))
}

/// `user`, and `group` where it is not the user's own.
fn user(table: &Table<'_>) -> Option<ExecUser> {
    let user = table.get("user").and_then(|item| found(&item, "user", user_named));
    let group = table.get("group").and_then(|item| found(&item, "group", |name| Some((group_named(name)?, 0))));
    if let (false, Some(item)) = (table.has("user"), table.get("group")) {
        table.doc.error(&item.key, "there is a group, but no user", "add `user`, or remove the group");
    }
    let (uid, gid) = user?;
    Some(ExecUser { uid, gid: group.map_or(gid, |(gid, _)| gid) })
}

fn found(item: &Item<'_>, what: &str, look: impl Fn(&str) -> Option<(u32, u32)>) -> Option<(u32, u32)> {
    let name = item.filled_text(&format!("the name of a {what}"))?.text;
    let found = look(&name);
    if found.is_none() {
        item.error(
            format!("this machine has no {what} {}", quoted(&name)),
            format!("create the {what}, or name one that is there"),
        );
    }
    found
}

/// The user's id, and that of its group.
fn user_named(name: &str) -> Option<(u32, u32)> {
    let name = CString::new(name).ok()?;
    let mut buffer = vec![0; LONGEST_ENTRY];
    // SAFETY: an all-zero entry is a valid one to be filled; the buffer outlives it and has the length that is said.
    unsafe {
        let mut entry: libc::passwd = std::mem::zeroed();
        let mut result = std::ptr::null_mut();
        libc::getpwnam_r(name.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut result);
        (!result.is_null()).then_some((entry.pw_uid, entry.pw_gid))
    }
}

fn group_named(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let mut buffer = vec![0; LONGEST_ENTRY];
    // SAFETY: as for the user.
    unsafe {
        let mut entry: libc::group = std::mem::zeroed();
        let mut result = std::ptr::null_mut();
        libc::getgrnam_r(name.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut result);
        (!result.is_null()).then_some(entry.gr_gid)
    }
}

fn limits(table: &Table<'_>) -> ExecLimits {
    let memory = table.get("memory").and_then(|item| item.size(1 << 20..=1 << 50));
    let cpu = table.get("cpu").and_then(|item| item.duration(Duration::from_secs(1)..=DAY.saturating_mul(7)));
    let files =
        table.get("files").and_then(|item| item.integer(8..=1 << 20)).and_then(|files| u64::try_from(files).ok());
    table.close();
    ExecLimits { memory, cpu, files }
}
