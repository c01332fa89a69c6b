//! "Call this class with these arguments", answered with a node. Only the shapes that Python itself writes are known.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;

use super::DecodeError;
use super::globals::Known;
use super::node::{Arena, Node, NodeId, Zone};
use crate::intake::iso::{Stamp, time_isoformat};
use crate::intake::tagged::Tag;

/// The node that `known(*arguments)` stands for; `arguments` is a tuple.
pub(super) fn construct(arena: &Arena, known: Known, arguments: NodeId) -> Result<Node, DecodeError> {
    let args = arena.tuple(arguments).unwrap_or_default();
    let node = match known {
        Known::Datetime => datetime(arena, args),
        Known::Date => date(arena, args),
        Known::Time => time(arena, args),
        Known::Timedelta => timedelta(arena, args),
        Known::Timezone => timezone(arena, args),
        Known::ZoneInfo | Known::ZoneInfoUnpickle => named_zone(arena, args)?,
        Known::Getattr => getattr(arena, args),
        Known::PytzUtc => args.is_empty().then_some(Node::Zone(Zone::Fixed(TimeDelta::zero()))),
        Known::PytzZone => pytz_zone(arena, args),
        Known::Decimal => decimal(arena, args),
        Known::Uuid => uuid(arena, args),
        Known::OrderedDict | Known::Counter => mapping(arena, args),
        Known::DefaultDict => default_dict(arena, args),
        Known::Deque => sequence(arena, args).map(Node::List),
        Known::Set => sequence(arena, args).map(Node::Set),
        Known::Frozenset => sequence(arena, args).map(Node::Frozenset),
        Known::Complex => around(arena, Tag::Complex, arguments, 2, |node| matches!(node, Node::Float(_))),
        Known::Range => around(arena, Tag::Range, arguments, 3, |node| matches!(node, Node::Int(_) | Node::BigInt(_))),
        Known::Slice => around(arena, Tag::Slice, arguments, 3, |_| true),
        Known::Bytes => args.is_empty().then(|| Node::Bytes(Vec::new())),
        Known::Bytearray => bytearray(arena, args),
        Known::Path => path(arena, args),
        Known::HttpStatus => single(args).and_then(|arg| arena.int(arg)).map(Node::Int),
        Known::Encode => encoded(arena, args).map(Node::Bytes),
        Known::Reconstructor => reconstructed(arena, args),
        Known::Exception(name) => Some(Node::Exception(name, arguments)),
        Known::Object | Known::Factory => None,
    };
    node.ok_or(DecodeError::Arguments { class: known.name() })
}

/// Gives an object its state. Of the known classes only a UUID has one that matters; an exception's extra attributes
/// are dropped.
pub(super) fn build(arena: &mut Arena, object: NodeId, state: NodeId) -> Result<(), DecodeError> {
    let value = match arena.get(object) {
        Node::BlankUuid => uuid_state(arena, state).ok_or(DecodeError::Arguments { class: "UUID" })?,
        Node::Exception(..) => return Ok(()),
        _ => {
            return Err(DecodeError::Arguments { class: "object with a state" });
        }
    };
    *arena.get_mut(object) = Node::Uuid(value);
    Ok(())
}

fn single(args: &[NodeId]) -> Option<NodeId> {
    match args {
        [only] => Some(*only),
        _ => None,
    }
}

/// Ten bytes (year, month with `fold` in its top bit, day, hour, minute, second, microseconds) and maybe a zone.
fn datetime(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let (first, zone) = first_and_zone(arena, args)?;
    let [y1, y2, month, day, rest @ ..] = arena.bytes(first)? else {
        return None;
    };
    let fold = month & 0x80 != 0;
    let local = calendar_date(*y1, *y2, month & 0x7f, *day)?.and_time(clock_time(rest)?);
    let offset = match zone {
        None => None,
        Some(Zone::Fixed(offset)) => Some(offset),
        Some(Zone::Named(zone)) => Some(offset_in(zone, local, fold)?),
    };
    Some(Node::Tagged(Tag::Datetime, Stamp { local, offset }.isoformat()))
}

fn date(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let [y1, y2, month, day] = *arena.bytes(single(args)?)? else {
        return None;
    };
    let date = calendar_date(y1, y2, month, day)?;
    Some(Node::Tagged(Tag::Date, date.format("%Y-%m-%d").to_string()))
}

/// Six bytes, the first with `fold` in its top bit. A time of day has no offset in a zone that has several.
fn time(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let (first, zone) = first_and_zone(arena, args)?;
    let [hour, rest @ ..] = arena.bytes(first)? else {
        return None;
    };
    let time = clock_time(&[&[hour & 0x7f], rest].concat())?;
    let offset = match zone {
        Some(Zone::Fixed(offset)) => Some(offset),
        Some(Zone::Named(_)) | None => None,
    };
    Some(Node::Tagged(Tag::Time, time_isoformat(time, offset)))
}

fn first_and_zone(arena: &Arena, args: &[NodeId]) -> Option<(NodeId, Option<Zone>)> {
    match args {
        [first] => Some((*first, None)),
        [first, zone] => match arena.get(*zone) {
            Node::Zone(zone) => Some((*first, Some(*zone))),
            Node::None => Some((*first, None)),
            _ => None,
        },
        _ => None,
    }
}

fn calendar_date(y1: u8, y2: u8, month: u8, day: u8) -> Option<NaiveDate> {
    let year = i32::from(u16::from_be_bytes([y1, y2]));
    NaiveDate::from_ymd_opt(year, month.into(), day.into()).filter(|_| (1..=9999).contains(&year))
}

fn clock_time(bytes: &[u8]) -> Option<NaiveTime> {
    let [hour, minute, second, u1, u2, u3] = *bytes else {
        return None;
    };
    let micros = u32::from_be_bytes([0, u1, u2, u3]);
    NaiveTime::from_hms_micro_opt(hour.into(), minute.into(), second.into(), micros).filter(|_| micros < 1_000_000)
}

/// The zone's offset at a local time. A time that occurs twice is told apart by `fold`; one that is skipped has the
/// offset from before the change, or with `fold` the one from after it.
fn offset_in(zone: Tz, local: NaiveDateTime, fold: bool) -> Option<TimeDelta> {
    let nearby = |days| {
        let local = local.checked_add_signed(TimeDelta::days(days))?;
        zone.offset_from_local_datetime(&local).earliest()
    };
    let offset = match zone.offset_from_local_datetime(&local) {
        chrono::MappedLocalTime::Single(offset) => offset,
        chrono::MappedLocalTime::Ambiguous(first, second) => {
            if fold {
                second
            } else {
                first
            }
        }
        chrono::MappedLocalTime::None => nearby(if fold { 1 } else { -1 })?,
    };
    Some(TimeDelta::seconds(offset.fix().local_minus_utc().into()))
}

fn timedelta(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let [days, seconds, micros] = *args else {
        return None;
    };
    let days = arena.int(days).filter(|days| days.abs() < 1_000_000_000)?;
    let rest = TimeDelta::try_seconds(arena.int(seconds)?)?;
    let delta = TimeDelta::try_days(days)?.checked_add(&rest)?;
    Some(Node::Timedelta(delta.checked_add(&TimeDelta::microseconds(arena.int(micros)?))?))
}

fn timezone(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let (offset, name) = match args {
        [offset] => (offset, None),
        [offset, name] => (offset, Some(name)),
        _ => return None,
    };
    if name.is_some_and(|name| arena.text(*name).is_none()) {
        return None;
    }
    match arena.get(*offset) {
        Node::Timedelta(offset) => fixed_zone(*offset),
        _ => None,
    }
}

fn fixed_zone(offset: TimeDelta) -> Option<Node> {
    (offset.abs() < TimeDelta::days(1)).then_some(Node::Zone(Zone::Fixed(offset)))
}

/// `(key)` or `(key, from_cache)`.
fn named_zone(arena: &Arena, args: &[NodeId]) -> Result<Option<Node>, DecodeError> {
    let ([key] | [key, _]) = args else {
        return Ok(None);
    };
    let Some(name) = arena.text(*key) else {
        return Ok(None);
    };
    let zone: Tz = name.parse().map_err(|_| DecodeError::Arguments { class: "time zone of an unknown name" })?;
    Ok(Some(Node::Zone(Zone::Named(zone))))
}

/// The one attribute that pickles of standard objects ask for.
fn getattr(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let [object, name] = *args else { return None };
    let is_zone = matches!(arena.get(object), Node::Class(Known::ZoneInfo));
    (is_zone && arena.text(name)? == "_unpickle").then_some(Node::Class(Known::ZoneInfoUnpickle))
}

/// `(name, offset in seconds, daylight saving in seconds, abbreviation)`: pytz has fixed the offset already.
fn pytz_zone(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let [_, offset, _, _] = *args else {
        return None;
    };
    fixed_zone(TimeDelta::try_seconds(arena.int(offset)?)?)
}

fn decimal(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let text = arena.text(single(args)?)?;
    let plausible = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (plausible && !text.is_empty()).then(|| Node::Tagged(Tag::Decimal, text.to_owned()))
}

/// Without arguments a UUID waits for its state.
fn uuid(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let Some(first) = args.first() else {
        return Some(Node::BlankUuid);
    };
    let hex: String = arena.text(*first)?.chars().filter(|character| *character != '-').collect();
    let value = u128::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == 32)?;
    Some(Node::Uuid(value))
}

fn uuid_state(arena: &Arena, state: NodeId) -> Option<u128> {
    let Node::Dict(pairs) = arena.get(state) else {
        return None;
    };
    let (_, value) = pairs.iter().find(|(key, _)| arena.text(*key) == Some("int"))?;
    match arena.get(*value) {
        Node::Int(small) => u128::try_from(*small).ok(),
        Node::BigInt(decimal) => decimal.parse().ok(),
        _ => None,
    }
}

/// A dict of nothing, of another dict's items, or of a list of pairs.
fn mapping(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let Some(source) = args.first() else {
        return Some(Node::Dict(Vec::new()));
    };
    let pair = |item: &NodeId| match arena.items(*item)? {
        [key, value] => Some((*key, *value)),
        _ => None,
    };
    let pairs = match arena.get(*source) {
        Node::Dict(pairs) => pairs.clone(),
        _ => arena.items(*source)?.iter().map(pair).collect::<Option<_>>()?,
    };
    (args.len() == 1).then_some(Node::Dict(pairs))
}

/// The default itself says nothing about what the dict holds.
fn default_dict(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let known = match args {
        [] => true,
        [factory] => matches!(arena.get(*factory), Node::None | Node::Class(_)),
        _ => false,
    };
    known.then(|| Node::Dict(Vec::new()))
}

/// The items of the first argument; a deque's second argument, its length limit, is dropped.
fn sequence(arena: &Arena, args: &[NodeId]) -> Option<Vec<NodeId>> {
    args.first().map_or_else(|| Some(Vec::new()), |items| arena.items(*items).map(<[NodeId]>::to_vec))
}

fn around(arena: &Arena, tag: Tag, arguments: NodeId, length: usize, fits: fn(&Node) -> bool) -> Option<Node> {
    let items = arena.tuple(arguments)?;
    (items.len() == length && items.iter().all(|item| fits(arena.get(*item)))).then_some(Node::Around(tag, arguments))
}

fn bytearray(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let bytes = match args {
        [] => Vec::new(),
        [bytes] => arena.bytes(*bytes)?.to_vec(),
        _ => encoded(arena, args)?,
    };
    Some(Node::Bytearray(bytes))
}

/// Its parts, the first of which may be the root.
fn path(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let parts: Vec<&str> = args.iter().map(|part| arena.text(*part)).collect::<Option<_>>()?;
    let text = match parts.split_first() {
        None => ".".to_owned(),
        Some((root, rest)) if root.ends_with('/') => format!("{root}{}", rest.join("/")),
        Some(_) => parts.join("/"),
    };
    Some(Node::Text(text))
}

/// `(text, "latin1")`: each character is a byte.
fn encoded(arena: &Arena, args: &[NodeId]) -> Option<Vec<u8>> {
    let [text, encoding] = *args else { return None };
    let latin = matches!(arena.text(encoding)?, "latin1" | "latin-1");
    let bytes = arena.text(text)?.chars().map(|character| u8::try_from(u32::from(character)).ok());
    bytes.collect::<Option<_>>().filter(|_| latin)
}

/// `(class, object, None)`.
fn reconstructed(arena: &Arena, args: &[NodeId]) -> Option<Node> {
    let [class, base, state] = *args else {
        return None;
    };
    match (arena.get(class), arena.get(base), arena.get(state)) {
        (Node::Class(Known::Uuid), Node::Class(Known::Object), Node::None) => Some(Node::BlankUuid),
        _ => None,
    }
}
