//! A failed attempt as a Python exception: its class, its arguments, and the traceback that people and tools look at.

use serde_json::Value;

use super::result::Exception;
use crate::intake::pyrepr;
use crate::job::Mishap;

/// The exceptions that Python itself has.
const BUILTINS: [&str; 65] = [
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "BaseException",
    "BaseExceptionGroup",
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
    "ExceptionGroup",
    "FileExistsError",
    "FileNotFoundError",
    "FloatingPointError",
    "FutureWarning",
    "GeneratorExit",
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
    "UnicodeTranslateError",
    "UserWarning",
    "ValueError",
    "ZeroDivisionError",
];

/// The module of failures that have no class in Python: a client makes up one of that name.
const OURS: &str = "jobsd";

/// The exception of an attempt. `soft`: the limit of its run time was one that a task may catch.
pub(super) fn of(mishap: &Mishap, soft: bool) -> Exception {
    if mishap.name == "TimeLimitExceeded" && soft {
        return Exception::new("billiard.exceptions", "SoftTimeLimitExceeded", Vec::new());
    }
    let args = mishap.args.clone().unwrap_or_else(|| vec![mishap.message.as_str().into()]);
    let (module, class) = match mishap.name.rsplit_once('.') {
        Some((module, class)) => (module, class),
        None => (module(&mishap.name), mishap.name.as_str()),
    };
    Exception::new(module, class, args)
}

fn module(class: &str) -> &'static str {
    match class {
        "WorkerLostError" | "TimeLimitExceeded" => "billiard.exceptions",
        "NotRegistered" | "InvalidTaskError" => "celery.exceptions",
        class if BUILTINS.contains(&class) => "builtins",
        _ => OURS,
    }
}

/// The text of a traceback; `None` where Celery's worker has none either, because no code of the task has raised it. What
/// is known beyond the exception stands where the lines of the program would.
pub(super) fn traceback(exception: &Exception, detail: Option<&str>) -> Option<String> {
    let raised = !matches!(
        exception.exc_type.as_str(),
        "NotRegistered" | "InvalidTaskError" | "ContentDisallowed" | "TimeLimitExceeded" | "WorkerLostError"
    );
    raised.then(|| frame(&last_line(exception), detail))
}

/// The same of an attempt after which there is another one, in so many seconds.
pub(super) fn traceback_of_retry(exception: &Exception, detail: Option<&str>, seconds: f64) -> String {
    let args: Vec<String> = exception.exc_message.iter().map(pyrepr::repr).collect();
    let cause = format!("{}({})", exception.exc_type, args.join(", "));
    frame(&format!("celery.exceptions.Retry: Retry in {seconds}s: {cause}"), detail)
}

fn frame(last: &str, detail: Option<&str>) -> String {
    let detail = detail.map(|detail| format!("  {}\n", detail.trim_end().replace('\n', "\n  ")));
    format!("Traceback (most recent call last):\n{}{last}\n", detail.unwrap_or_default())
}

/// `module.Class: str(exception)`, as Python ends a traceback.
fn last_line(exception: &Exception) -> String {
    let Exception { exc_type, exc_module, exc_message } = exception;
    let class = if exc_module == "builtins" { exc_type.clone() } else { format!("{exc_module}.{exc_type}") };
    match exc_message.as_slice() {
        // Its own way to print itself.
        [] if exc_type == "SoftTimeLimitExceeded" => format!("{class}: {exc_type}()"),
        [] => class,
        [Value::String(text)] if text.is_empty() && exc_type != "KeyError" => class,
        [Value::String(text)] if exc_type != "KeyError" => format!("{class}: {text}"),
        [one] => format!("{class}: {}", pyrepr::repr(one)),
        several => {
            let args: Vec<String> = several.iter().map(pyrepr::repr).collect();
            format!("{class}: ({})", args.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_traceback_ends_as_pythons_does() {
        let exception = |module: &str, class: &str, args: Value| {
            Exception::new(module, class, args.as_array().expect("a list").clone())
        };
        let cases = [
            (exception("builtins", "ValueError", json!(["no such thing"])), None, "ValueError: no such thing"),
            (exception("builtins", "KeyError", json!(["a'b"])), None, "KeyError: \"a'b\""),
            (exception("builtins", "ValueError", json!([])), None, "ValueError"),
            (exception("builtins", "ValueError", json!([""])), None, "ValueError"),
            (exception("builtins", "OSError", json!([2, "gone", 1.5])), None, "OSError: (2, 'gone', 1.5)"),
            (exception("decimal", "Inexact", json!([1.5])), None, "decimal.Inexact: 1.5"),
            (
                exception("jobsd", "Http503", json!(["busy"])),
                Some("<html>\n</html>\n"),
                "  <html>\n  </html>\njobsd.Http503: busy",
            ),
        ];
        for (exception, detail, end) in cases {
            let text = traceback(&exception, detail).expect("a text");
            assert_eq!(text, format!("Traceback (most recent call last):\n{end}\n"));
        }
        assert_eq!(traceback(&Exception::not_registered("t"), None), None);
        let text = traceback_of_retry(&exception("builtins", "RuntimeError", json!(["no", 1])), None, 1.5);
        assert!(text.ends_with("\ncelery.exceptions.Retry: Retry in 1.5s: RuntimeError('no', 1)\n"), "{text}");
    }
}
