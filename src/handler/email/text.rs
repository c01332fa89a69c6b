//! The plain-text part of a mail that came as HTML only: what a person would read, with the links written out.
//!
//! Not a browser: it knows blocks, lists, links, line breaks and entities, and leaves everything else out. One pass
//! over the input, whatever the input is.

/// Elements whose content nobody sees.
const HIDDEN: [&str; 4] = ["style", "script", "head", "title"];

pub(super) fn from_html(html: &str) -> String {
    let mut page = Page::default();
    let mut rest = html;
    while let Some(open) = rest.find('<') {
        page.text(&rest[..open]);
        rest = &rest[open..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        if !rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
            page.text("<");
            rest = &rest[1..];
            continue;
        }
        let Some(close) = rest.find('>') else { break };
        let tag = &rest[1..close];
        rest = &rest[close + 1..];
        let name = page.tag(tag);
        if HIDDEN.contains(&name.as_str()) {
            rest = after_closing(rest, &name);
        }
    }
    page.text(if rest.starts_with('<') { "" } else { rest });
    page.finish()
}

#[derive(Default)]
struct Page {
    out: String,
    /// A space is due before the next word.
    space: bool,
    /// Where the text of the open link starts, and where it leads.
    link: Option<(usize, String)>,
}

impl Page {
    /// Adds running text: runs of white space are one space.
    fn text(&mut self, raw: &str) {
        for c in decode(raw).chars() {
            if c.is_whitespace() && c != '\u{a0}' {
                self.space = true;
                continue;
            }
            if std::mem::take(&mut self.space) && !self.out.is_empty() && !self.out.ends_with(['\n', ' ']) {
                self.out.push(' ');
            }
            self.out.push(if c == '\u{a0}' { ' ' } else { c });
        }
    }

    /// Acts on a tag and returns its name in lower case, with the slash of a closing one.
    fn tag(&mut self, tag: &str) -> String {
        let name: String = tag.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '/').collect();
        let name = name.trim_end_matches('/').to_ascii_lowercase();
        match name.as_str() {
            "br" => self.line_break(1),
            "p" | "/p" | "h1" | "/h1" | "h2" | "/h2" | "h3" | "/h3" | "ul" | "/ul" | "ol" | "/ol" | "blockquote"
            | "/blockquote" | "table" | "/table" => self.line_break(2),
            "div" | "/div" | "tr" | "/tr" | "/li" | "h4" | "/h4" => self.line_break(1),
            "td" | "th" => self.space = true,
            "hr" => {
                self.line_break(1);
                self.out.push_str("---");
                self.line_break(1);
            }
            "li" => {
                self.line_break(1);
                self.out.push_str("- ");
            }
            "a" => self.link = attribute(tag, "href").map(|target| (self.out.len(), decode(&target))),
            "/a" => self.close_link(),
            _ => {}
        }
        name
    }

    fn line_break(&mut self, lines: usize) {
        self.space = false;
        self.out.truncate(self.out.trim_end_matches(' ').len());
        if self.out.is_empty() {
            return;
        }
        let present = self.out.len() - self.out.trim_end_matches('\n').len();
        // `br` after `br` makes an empty line, a block never more than one.
        let missing =
            if lines == 1 && present == 1 && self.out.ends_with('\n') { 0 } else { lines.saturating_sub(present) };
        self.out.extend(std::iter::repeat_n('\n', missing));
    }

    /// `text (https://…)`, unless the text is the address already.
    fn close_link(&mut self) {
        let Some((start, target)) = self.link.take() else { return };
        let shown = self.out.get(start.min(self.out.len())..).unwrap_or_default().trim();
        let worth = target.starts_with("http://") || target.starts_with("https://");
        if worth && shown != target {
            if !shown.is_empty() {
                self.out.push(' ');
            }
            self.out.push_str(&format!("({target})"));
        }
    }

    fn finish(self) -> String {
        let mut text = self.out.trim().to_owned();
        text.push('\n');
        text
    }
}

fn after_closing<'a>(rest: &'a str, name: &str) -> &'a str {
    let closing = format!("</{name}");
    let found =
        rest.as_bytes().windows(closing.len()).position(|window| window.eq_ignore_ascii_case(closing.as_bytes()));
    found.and_then(|at| rest[at..].find('>').map(|end| &rest[at + end + 1..])).unwrap_or_default()
}

/// The value of an attribute, in either kind of quotes or none.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let lower = tag.to_ascii_lowercase();
    let at = lower.match_indices(name).map(|(at, _)| at).find(|&at| {
        lower[..at].ends_with(|c: char| c.is_ascii_whitespace())
            && lower[at + name.len()..].trim_start().starts_with('=')
    })?;
    let value = tag[at + name.len()..].trim_start().strip_prefix('=')?.trim_start();
    let end = match value.chars().next()? {
        quote @ ('"' | '\'') => return value[1..].split(quote).next().map(str::to_owned),
        _ => value.find(|c: char| c.is_ascii_whitespace()).unwrap_or(value.len()),
    };
    Some(value[..end].to_owned())
}

fn decode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        // The longest entity we know has eight characters; a lone `&` stays one.
        let end = rest.bytes().take(12).position(|byte| byte == b';');
        match end.and_then(|end| entity(&rest[1..end]).map(|c| (c, end))) {
            Some((c, end)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code).filter(|c| !c.is_control() || c.is_whitespace());
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => '\u{a0}',
        "ndash" => '–',
        "mdash" => '—',
        "hellip" => '…',
        "copy" => '©',
        "rsquo" => '’',
        "lsquo" => '‘',
        "rdquo" => '”',
        "ldquo" => '“',
        "bull" => '•',
        "middot" => '·',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_reads_like_one() {
        let html = "<html><head><title>x</title><STYLE>p { color: red }</STYLE></head><body>\
            <h1>Welcome,\n   Ann &amp; Bob!</h1><p>Get&nbsp;started:</p>\
            <ul><li>Fill in your <b>profile</b></li><li>Find a job</li></ul>\
            <p>See <a class=\"b\" href='https://x.test/?a=1&amp;b=2'>the jobs</a><br>or not.</p><!-- <p>no --></body></html>";
        assert_eq!(
            from_html(html),
            "Welcome, Ann & Bob!\n\nGet started:\n\n- Fill in your profile\n- Find a job\n\n\
             See the jobs (https://x.test/?a=1&b=2)\nor not.\n"
        );
    }

    #[test]
    fn odd_input_ends() {
        for (html, text) in [
            ("1 < 2 & 3 &unknown; &#65;&#x42;", "1 < 2 & 3 &unknown; AB\n"),
            ("<a href=https://x.test>https://x.test</a>", "https://x.test\n"),
            ("<style>never closed", "\n"),
            ("<p", "\n"),
            ("é<", "é<\n"),
            ("<!-- open", "\n"),
            ("</a><a href=\"\">x</a>", "x\n"),
        ] {
            assert_eq!(from_html(html), text, "{html}");
        }
    }
}
