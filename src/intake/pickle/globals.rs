//! The classes and functions a pickle may name. Pickles of protocols 0 to 2 use the module names of Python 2.

use super::DecodeError;

/// Each of these is known by what it means, not by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Datetime,
    Date,
    Time,
    Timedelta,
    Timezone,
    ZoneInfo,
    /// `ZoneInfo._unpickle`, which pickles reach through `getattr`.
    ZoneInfoUnpickle,
    Getattr,
    PytzUtc,
    PytzZone,
    Decimal,
    Uuid,
    OrderedDict,
    DefaultDict,
    Counter,
    Deque,
    Complex,
    Range,
    Slice,
    Set,
    Frozenset,
    Bytes,
    Bytearray,
    Path,
    HttpStatus,
    /// `_codecs.encode`, how bytes are written before protocol 3.
    Encode,
    /// `copyreg._reconstructor`, how objects are made before protocol 2.
    Reconstructor,
    Object,
    /// A built-in type that only serves as the default of a `defaultdict`.
    Factory,
    Exception(&'static str),
}

impl Known {
    /// What `module.name` is; what is not known is refused by its name.
    pub(super) fn named(module: &str, name: &str) -> Result<Self, DecodeError> {
        Self::find(module, name).ok_or_else(|| DecodeError::ForeignClass(printable(module, name)))
    }

    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("datetime", "datetime") => Self::Datetime,
            ("datetime", "date") => Self::Date,
            ("datetime", "time") => Self::Time,
            ("datetime", "timedelta") => Self::Timedelta,
            ("datetime", "timezone") => Self::Timezone,
            ("zoneinfo", "ZoneInfo") => Self::ZoneInfo,
            ("zoneinfo", "ZoneInfo._unpickle") => Self::ZoneInfoUnpickle,
            ("pytz", "_UTC") => Self::PytzUtc,
            ("pytz", "_p") => Self::PytzZone,
            ("decimal" | "_decimal" | "_pydecimal", "Decimal") => Self::Decimal,
            ("uuid", "UUID") => Self::Uuid,
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("collections", "defaultdict") => Self::DefaultDict,
            ("collections", "Counter") => Self::Counter,
            ("collections", "deque") => Self::Deque,
            ("pathlib" | "pathlib._local", "PurePosixPath" | "PosixPath" | "PurePath" | "Path") => Self::Path,
            ("http", "HTTPStatus") => Self::HttpStatus,
            ("_codecs", "encode") => Self::Encode,
            ("copyreg" | "copy_reg", "_reconstructor") => Self::Reconstructor,
            ("builtins" | "__builtin__" | "exceptions", name) => return Self::builtin(name),
            _ => return None,
        })
    }

    fn builtin(name: &str) -> Option<Self> {
        Some(match name {
            "complex" => Self::Complex,
            "range" | "xrange" => Self::Range,
            "slice" => Self::Slice,
            "set" => Self::Set,
            "frozenset" => Self::Frozenset,
            "bytes" => Self::Bytes,
            "bytearray" => Self::Bytearray,
            "getattr" => Self::Getattr,
            "object" => Self::Object,
            "list" | "dict" | "int" | "float" | "str" | "bool" | "tuple" => Self::Factory,
            _ => return exception(name).map(Self::Exception),
        })
    }

    /// The name for messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Datetime => "datetime",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timedelta => "timedelta",
            Self::Timezone => "timezone",
            Self::ZoneInfo | Self::ZoneInfoUnpickle => "ZoneInfo",
            Self::Getattr => "getattr",
            Self::PytzUtc | Self::PytzZone => "pytz timezone",
            Self::Decimal => "Decimal",
            Self::Uuid => "UUID",
            Self::OrderedDict => "OrderedDict",
            Self::DefaultDict => "defaultdict",
            Self::Counter => "Counter",
            Self::Deque => "deque",
            Self::Complex => "complex",
            Self::Range => "range",
            Self::Slice => "slice",
            Self::Set => "set",
            Self::Frozenset => "frozenset",
            Self::Bytes => "bytes",
            Self::Bytearray => "bytearray",
            Self::Path => "path",
            Self::HttpStatus => "HTTPStatus",
            Self::Encode => "encoded text",
            Self::Reconstructor | Self::Object => "object",
            Self::Factory => "built-in type",
            Self::Exception(name) => name,
        }
    }
}

/// `module.name`, cut to what fits a message.
fn printable(module: &str, name: &str) -> String {
    let cut = |text: &str| text.chars().filter(|character| !character.is_control()).take(100).collect::<String>();
    format!("{}.{}", cut(module), cut(name))
}

/// The built-in exception of this name.
pub(super) fn exception(name: &str) -> Option<&'static str> {
    EXCEPTIONS.into_iter().find(|known| *known == name)
}

const EXCEPTIONS: [&str; 63] = [
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "BaseException",
    "BlockingIOError",
    "BrokenPipeError",
    "BufferError",
    "BytesWarning",
    "ChildProcessError",
    "ConnectionAbortedError",
    "ConnectionError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "DeprecationWarning",
    "EOFError",
    "EncodingWarning",
    "Exception",
    "FileExistsError",
    "FileNotFoundError",
    "FloatingPointError",
    "FutureWarning",
    "GeneratorExit",
    "IOError",
    "ImportError",
    "ImportWarning",
    "IndentationError",
    "IndexError",
    "InterruptedError",
    "IsADirectoryError",
    "KeyError",
    "KeyboardInterrupt",
    "LookupError",
    "MemoryError",
    "ModuleNotFoundError",
    "NameError",
    "NotADirectoryError",
    "NotImplementedError",
    "OSError",
    "OverflowError",
    "PendingDeprecationWarning",
    "PermissionError",
    "ProcessLookupError",
    "RecursionError",
    "ReferenceError",
    "ResourceWarning",
    "RuntimeError",
    "RuntimeWarning",
    "StopAsyncIteration",
    "StopIteration",
    "SyntaxError",
    "SyntaxWarning",
    "SystemError",
    "SystemExit",
    "TabError",
    "TimeoutError",
    "TypeError",
    "UnboundLocalError",
    "UnicodeDecodeError",
    "UnicodeEncodeError",
    "UnicodeError",
    "UserWarning",
    "ValueError",
    "ZeroDivisionError",
];
