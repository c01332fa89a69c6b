//! The bytes CPython itself writes for the call of an RQ job: protocol 5, framed, each object memoized. Results need
//! none of this; it exists so that a job made here is one that RQ could have made.
//!
//! CPython reuses the memo for one *object* that occurs twice. Values have no identity, so nothing is reused here.

use serde_json::{Map, Number, Value};

use crate::intake::bigint;

/// Frames end before the first object past this size; longer strings stand between frames.
const FRAME: usize = 64 * 1024;
/// Items per SETITEMS and APPENDS.
const BATCH: usize = 1000;

/// The pickle of `(func_name, None, args, kwargs)` with `args` as a tuple. Tags are not read: only plain JSON values
/// are meant to be passed.
pub(crate) fn dumps_call(func_name: &str, args: &[Value], kwargs: &Map<String, Value>) -> Vec<u8> {
    let mut pickler = Pickler { out: vec![0x80, 5], frame: Vec::new() };
    pickler.opcode(b'(');
    pickler.text(func_name);
    pickler.opcode(b'N');
    pickler.tuple(args);
    pickler.boundary();
    pickler.dict(kwargs);
    pickler.opcode(b't');
    pickler.memoize();
    pickler.opcode(b'.');
    pickler.end_frame();
    pickler.out
}

struct Pickler {
    out: Vec<u8>,
    /// The frame being filled.
    frame: Vec<u8>,
}

impl Pickler {
    fn value(&mut self, value: &Value) {
        self.boundary();
        match value {
            Value::Null => self.opcode(b'N'),
            Value::Bool(yes) => self.opcode(if *yes { 0x88 } else { 0x89 }),
            Value::Number(number) => self.number(number),
            Value::String(text) => self.text(text),
            Value::Array(items) => self.list(items),
            Value::Object(map) => self.dict(map),
        }
    }

    fn opcode(&mut self, opcode: u8) {
        self.frame.push(opcode);
    }

    fn memoize(&mut self) {
        self.opcode(0x94);
    }

    fn number(&mut self, number: &Number) {
        match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => self.int(int),
            (None, Some(float)) if number.is_f64() => {
                self.opcode(b'G');
                self.frame.extend(float.to_be_bytes());
            }
            _ => {
                let bytes = bigint::from_decimal(&number.to_string()).expect("a JSON number here is a u64");
                self.long(&bytes);
            }
        }
    }

    fn int(&mut self, int: i64) {
        if let Ok(byte) = u8::try_from(int) {
            self.frame.extend([b'K', byte]);
        } else if let Ok(short) = u16::try_from(int) {
            self.opcode(b'M');
            self.frame.extend(short.to_le_bytes());
        } else if let Ok(word) = i32::try_from(int) {
            self.opcode(b'J');
            self.frame.extend(word.to_le_bytes());
        } else {
            let bytes = bigint::from_decimal(&int.to_string()).expect("an i64 is short");
            self.long(&bytes);
        }
    }

    fn long(&mut self, bytes: &[u8]) {
        self.frame.extend([0x8a, u8::try_from(bytes.len()).expect("64 bits and a sign fit nine bytes")]);
        self.frame.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        let length = text.len();
        let header = match (u8::try_from(length), u32::try_from(length)) {
            (Ok(short), _) => vec![0x8c, short],
            (_, Ok(long)) => [&[b'X'][..], &long.to_le_bytes()].concat(),
            _ => [&[0x8d][..], &(length as u64).to_le_bytes()].concat(),
        };
        if length >= FRAME {
            self.end_frame();
            self.out.extend(header);
            self.out.extend(text.as_bytes());
        } else {
            self.frame.extend(header);
            self.frame.extend(text.as_bytes());
        }
        self.memoize();
    }

    fn tuple(&mut self, items: &[Value]) {
        let end = match items.len() {
            0 => return self.opcode(b')'),
            1 => 0x85,
            2 => 0x86,
            3 => 0x87,
            _ => {
                self.opcode(b'(');
                b't'
            }
        };
        items.iter().for_each(|item| self.value(item));
        self.opcode(end);
        self.memoize();
    }

    fn list(&mut self, items: &[Value]) {
        self.opcode(b']');
        self.memoize();
        if let [only] = items {
            self.value(only);
            return self.opcode(b'a');
        }
        for batch in items.chunks(BATCH) {
            self.opcode(b'(');
            batch.iter().for_each(|item| self.value(item));
            self.opcode(b'e');
        }
    }

    fn dict(&mut self, map: &Map<String, Value>) {
        self.opcode(b'}');
        self.memoize();
        let pairs: Vec<_> = map.iter().collect();
        for batch in pairs.chunks(BATCH) {
            let marked = pairs.len() > 1;
            if marked {
                self.opcode(b'(');
            }
            for (key, value) in batch {
                self.boundary();
                self.text(key);
                self.value(value);
            }
            self.opcode(if marked { b'u' } else { b's' });
        }
    }

    /// A frame may end before each object.
    fn boundary(&mut self) {
        if self.frame.len() >= FRAME {
            self.end_frame();
        }
    }

    /// Writes the frame out. One too short to be worth its header goes without.
    fn end_frame(&mut self) {
        if self.frame.len() >= 4 {
            self.out.push(0x95);
            self.out.extend((self.frame.len() as u64).to_le_bytes());
        }
        self.out.append(&mut self.frame);
    }
}
