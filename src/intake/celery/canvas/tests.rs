//! What follows a task, message by message: captured messages in, and out what a real worker published for the like.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::intake::celery::tests::{fixture, read};
use crate::job::NodeId;
use crate::testing::fixture;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// What the end of a captured task publishes: list and message of each, sizes of chords, and the children.
struct Followed {
    messages: Vec<(String, Value, Value)>,
    sizes: Vec<(String, usize)>,
    children: Vec<Value>,
}

fn canvas(name: &str) -> Canvas {
    let message = read(&fixture(name));
    let mut note = json!({"id": message.id});
    for (field, value) in super::note(&message) {
        note[field] = value;
    }
    Canvas::read(&note, "list").expect("something is due")
}

fn follow(canvas: &Canvas, result: &Value) -> Result<Followed, Unfit> {
    let config: Config = fixture::config(Path::new("/nowhere"));
    let node = NodeId::parse("vps-1").expect("a name");
    let routes = Routes { config: &config, node: &node, from: &canvas.from };
    let mut publisher = Publisher::new(canvas.parent(&routes, NOW));
    let children = publisher.follow(&canvas.embed, result)?.iter().map(node::Node::to_value).collect();
    let (mut messages, mut sizes) = (Vec::new(), Vec::new());
    for write in publisher.into_writes() {
        match write {
            publish::Write::Message { list, element } => {
                let envelope: Value = serde_json::from_slice(&element).expect("JSON");
                let body = STANDARD.decode(envelope["body"].as_str().expect("a text")).expect("base64");
                messages.push((list, envelope, serde_json::from_slice(&body).expect("JSON")));
            }
            publish::Write::Size { group, parts } => sizes.push((group, parts)),
            publish::Write::Shape { .. } => panic!("no header has groups here"),
        }
    }
    Ok(Followed { messages, sizes, children })
}

#[test]
fn the_next_step_of_a_chain_takes_the_rest_along() {
    let canvas = canvas("chain3");
    let Followed { messages, sizes, children } = follow(&canvas, &json!(3)).expect("it is published");
    let [(list, envelope, body)] = &messages[..] else { panic!("{messages:#?}") };
    let next = "25c7d3df-36a1-4651-a4fb-3b1d8c665817";
    assert_eq!((list.as_str(), sizes.len()), ("emails", 0));
    assert_eq!(children, [json!([[next, null], null])]);
    let rest = canvas.embed.chain[0].clone();
    assert_eq!(*body, json!([[3, 3], {}, {"callbacks": null, "errbacks": null, "chain": [rest], "chord": null}]));
    let headers = &envelope["headers"];
    assert_eq!((&headers["id"], &headers["task"]), (&json!(next), &json!("conf.add")));
    assert_eq!((&headers["root_id"], &headers["parent_id"]), (&json!(canvas.root), &json!(canvas.id)));
    assert_eq!((&headers["argsrepr"], &headers["group"]), (&json!("(3, 3)"), &Value::Null));
    assert_eq!(envelope["properties"]["reply_to"], "9c7a1907-6916-3a95-989a-387eb0456101");
    // The last task of a chain carries an empty list.
    let last = Canvas { embed: Embed { chain: json!([rest]), ..Embed::default() }, ..canvas };
    assert_eq!(follow(&last, &json!(6)).expect("it is published").messages[0].2[2]["chain"], json!([]));
}

/// As in the capture of a real worker: the embedded body of the chord, what it carries of the chain, and in which order.
#[test]
fn a_chord_in_a_chain_is_unfolded() {
    let canvas = canvas("chain_group_chord");
    let Followed { messages, sizes, children } = follow(&canvas, &json!(2)).expect("it is published");
    let group = "c6b7234a-aecc-4e5b-915c-3b5846471c2e";
    let ids = ["641f3340-1052-488f-be6c-9beb5ccf8e1a", "62084c10-655e-4594-890c-64df3d4e91ac"];
    assert_eq!(sizes, [(group.to_owned(), 2)]);
    assert_eq!(children, [json!([[group, null], [[[ids[0], null], null], [[ids[1], null], null]]])]);
    let body = format!(
        r#"{{"task":"conf.xsum","args":[],"kwargs":{{}},"options":{{"task_id":"61291933-da4d-4ce8-a338-96f1217f014c","reply_to":"9c7a1907-6916-3a95-989a-387eb0456101","chain":[],"parent_id":"{0}","root_id":"{0}","priority":null}},"subtask_type":null,"immutable":false}}"#,
        canvas.id
    );
    for (index, (_, envelope, message)) in messages.iter().enumerate() {
        assert_eq!(envelope["headers"]["id"], ids[index]);
        assert_eq!(
            (&envelope["headers"]["group"], &envelope["headers"]["group_index"]),
            (&json!(group), &json!(index))
        );
        assert_eq!(message[0], json!([2, index + 2]));
        assert_eq!((&message[2]["chain"], &message[2]["callbacks"]), (&Value::Null, &Value::Null));
        assert_eq!(message[2]["chord"].to_string(), body, "the order too");
    }
    assert_eq!(messages.len(), 2);
}

#[test]
fn options_of_a_step_are_honoured() {
    let message =
        follow(&canvas("chain_with_countdown_priority"), &json!(3)).expect("it is published").messages.remove(0);
    assert_eq!(message.0, "analytics\u{6}\u{16}9", "its own queue and priority");
    assert_eq!(message.1["headers"]["eta"], "2027-01-15T08:00:05+00:00");
    assert_eq!((&message.1["properties"]["priority"], &message.2[0]), (&json!(9), &json!([3, 1])));
    let immutable = follow(&canvas("immutable_sig"), &json!(3)).expect("it is published").messages.remove(0);
    assert_eq!(immutable.2[0], json!([10, 10]));
}

#[test]
fn what_would_not_end_is_not_published() {
    let large = json!("x".repeat(1 << 20));
    let step = json!({"task": "t", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false});
    let group = json!({"task": "celery.group", "args": [], "kwargs": {"tasks": vec![step; 100]}, "options": {}, "subtask_type": "group", "immutable": false});
    let embed = Embed { chain: json!([group]), ..Embed::default() };
    let canvas = Canvas { id: "i".into(), root: "i".into(), group: None, index: None, from: "q".into(), embed };
    assert_eq!(follow(&canvas, &json!(1)).expect("it is published").messages.len(), 100);
    assert_eq!(follow(&canvas, &large).err(), Some(Unfit::TooLarge));
}

/// A group inside a header is put in front, one member after another, so its order turns round: Celery's own quirk.
#[test]
fn groups_in_a_header_are_unrolled_as_celery_does() {
    let task = |name: &str| json!({"task": name});
    let group = json!({"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [task("a"), task("b")]}});
    let tasks = [group, task("c")].iter().map(|value| Signature::read(value).expect("a signature")).collect();
    let flat = freeze::unrolled(tasks).expect("they are signatures");
    assert_eq!(flat.iter().map(Signature::task).collect::<Vec<_>>(), ["b", "a", "c"]);
}
