//! Files that may be attached, and every way to name one that may not.

use std::os::unix::fs::symlink;

use serde_json::json;

use super::*;

/// `files/` is allowed, `private/` is not.
fn folders() -> (tempfile::TempDir, AttachmentRules) {
    let home = tempfile::tempdir().expect("a temp dir");
    for (folder, file) in [("files", "invoice.pdf"), ("private", "key.pem"), ("files-not", "x.txt")] {
        std::fs::create_dir(home.path().join(folder)).expect("a folder");
        std::fs::write(home.path().join(folder).join(file), "12345").expect("written");
    }
    let rules = AttachmentRules { roots: vec![home.path().join("files")], max: 12 };
    (home, rules)
}

#[test]
fn a_file_of_an_allowed_folder_is_attached() {
    let (home, rules) = folders();
    let path = |name: &str| home.path().join("files").join(name).display().to_string();
    symlink(path("invoice.pdf"), path("latest")).expect("a link");
    let named = json!({"path": path("latest"), "name": "Your/invoice é.pdf"});
    let files = read(&json!(["invoice.pdf", named]), &rules).expect("both are read");
    let shown: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.bytes.len())).collect();
    assert_eq!(shown, [("invoice.pdf", 5), ("Your_invoice é.pdf", 5)]);
    assert_eq!(files[0].kind, ContentType::parse("application/pdf").expect("a type"));
    for nothing in [json!(null), json!(""), json!([])] {
        assert!(read(&nothing, &rules).expect("nothing is wanted").is_empty());
    }
}

#[test]
fn nothing_else_is_read() {
    let (home, rules) = folders();
    let at = |name: &str| home.path().join(name).display().to_string();
    symlink(at("private/key.pem"), at("files/link")).expect("a link");
    symlink(at("private"), at("files/folder")).expect("a link");
    std::fs::write(at("files/a\nb.txt"), "x").expect("written");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("files/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .expect("a pipe");
    let refused = |wanted: Value| read(&wanted, &rules).expect_err("it is refused");
    for outside in [
        at("private/key.pem"),
        at("private/none"),
        at("files/../private/key.pem"),
        at("files-not/x.txt"),
        "../private/key.pem".into(),
        "link".into(),
        "folder/key.pem".into(),
        "/etc/passwd".into(),
        "/dev/zero".into(),
        "invoice.pdf\0.png".into(),
    ] {
        assert!(matches!(refused(json!(outside)), AttachmentError::Outside { .. }), "{outside}");
    }
    assert!(matches!(refused(json!("none.pdf")), AttachmentError::Missing(_)));
    assert!(matches!(refused(json!(at("files/none.pdf"))), AttachmentError::Missing(_)));
    for other in ["pipe", "."] {
        assert!(matches!(refused(json!(other)), AttachmentError::NotAFile(_)), "{other}");
    }
    assert!(matches!(refused(json!("a\nb.txt")), AttachmentError::Name { error: TextError::Control, .. }));
    let thrice = json!(["invoice.pdf", "invoice.pdf", "invoice.pdf"]);
    assert!(matches!(refused(thrice), AttachmentError::TooLarge { max: 12, .. }));
    for kind in ["pdf", "a/b\r\nX: y", "text/plain; name=é"] {
        let wanted = json!({"path": "invoice.pdf", "type": kind});
        assert!(matches!(refused(wanted), AttachmentError::Kind { .. }), "{kind}");
    }
    for shape in [json!(7), json!({"file": "x"}), json!({"path": 7}), json!([["invoice.pdf"]]), json!(vec!["x"; 21])] {
        assert!(matches!(refused(shape.clone()), AttachmentError::Shape), "{shape}");
    }
    let none = AttachmentRules { roots: Vec::new(), max: 12 };
    assert!(matches!(read(&json!(at("files/invoice.pdf")), &none), Err(AttachmentError::Outside { .. })));
}
