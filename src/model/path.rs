//! Paths as raw bytes, and the one way they become text.
//!
//! A path on Unix is bytes, not text. It stays bytes through the walk, the index and the hashing;
//! only the terminal, HTML and JSON see text, and only through this module.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory's path inside its filesystem: empty for the filesystem's own root, else `/a/b`
/// without a trailing slash, so that paths concatenate.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumePath(Arc<[u8]>);

impl VolumePath {
    /// Wraps bytes that are empty or begin with `/`; trailing slashes are dropped.
    pub fn new(bytes: &[u8]) -> Self {
        let mut end = bytes.len();
        while end > 0 && bytes[end - 1] == b'/' {
            end -= 1;
        }
        Self(bytes[..end].into())
    }

    /// The bytes, without a trailing slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path of an entry of this directory.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut joined = Vec::with_capacity(self.0.len() + 1 + name.len());
        joined.extend_from_slice(&self.0);
        joined.push(b'/');
        joined.extend_from_slice(name);
        Self(joined.into())
    }

    /// The directory it lies in, and its name there; none for the filesystem's own root.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        let slash = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some((Self(self.0[..slash].into()), &self.0[slash + 1..]))
    }

    /// True if this is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        strip_prefix(&self.0, &ancestor.0).is_some()
    }
}

impl std::fmt::Debug for VolumePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VolumePath({})", escape(&self.0))
    }
}

/// What follows `prefix` in `path`, if `prefix` ends at a component boundary: empty or `/rest`.
pub fn strip_prefix<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest[0] == b'/').then_some(rest)
}

/// The bytes of an absolute path without a trailing slash: `/` itself is empty.
pub fn absolute_bytes(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_suffix(b"/").unwrap_or(bytes)
}

/// The path that raw bytes spell; the empty path is `/`.
pub fn to_path(bytes: &[u8]) -> PathBuf {
    if bytes.is_empty() {
        return PathBuf::from("/");
    }
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Text for people: control characters, characters that reorder or hide text, and bytes that are
/// not UTF-8 appear as `\n`, `\u{202e}` and `\xff`, so that a name can neither move the cursor nor
/// pose as another.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                _ if character.is_control() || is_deceptive(character) => {
                    let _ = write!(text, "\\u{{{:x}}}", u32::from(character));
                }
                _ => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// `escape` for a path.
pub fn escape_path(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// `escape_path`, with the host in front where it has to be named.
pub fn shown_path(host: Option<&str>, path: &Path) -> String {
    match host {
        Some(host) => format!("{}:{}", escape(host.as_bytes()), escape_path(path)),
        None => escape_path(path),
    }
}

/// Bidirectional controls (Unicode UAX #9), zero-width and line-breaking characters: they change
/// how a name looks without being seen.
fn is_deceptive(character: char) -> bool {
    matches!(
        character,
        '\u{061c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
    )
}

/// A word that a POSIX shell reads as exactly these bytes: bare if harmless, else in single
/// quotes, else (control characters, bytes that are not UTF-8) as `$'...'`.
pub fn shell_quote(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(byte);
    let text = escape(bytes);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return text;
    }
    let unchanged = text.as_bytes() == bytes;
    if unchanged {
        return format!("'{}'", text.replace('\'', "'\\''"));
    }
    let mut quoted = String::from("$'");
    for &byte in bytes {
        match byte {
            b'\'' | b'\\' => {
                quoted.push('\\');
                quoted.push(char::from(byte));
            }
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => {
                let _ = write!(quoted, "\\x{byte:02x}");
            }
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_component() {
        let home = VolumePath::new(b"/home/");
        assert!(VolumePath::new(b"/home/ann").is_within(&home));
        assert!(home.is_within(&home));
        assert!(!VolumePath::new(b"/homes").is_within(&home));
        assert!(home.is_within(&VolumePath::new(b"/")), "everything lies below the root");
        assert_eq!(VolumePath::new(b"").join(b"a").as_bytes(), b"/a");
    }

    #[test]
    fn deceptive_names_are_made_visible() {
        assert_eq!(escape(b"plain name.txt"), "plain name.txt");
        assert_eq!(escape("a\u{202e}gpj.exe".as_bytes()), "a\\u{202e}gpj.exe");
        assert_eq!(escape(b"a\x1b[2Jb\nc\xff"), "a\\u{1b}[2Jb\\nc\\xff");
        assert_eq!(escape("gr\u{fc}n".as_bytes()), "gr\u{fc}n");
    }

    #[test]
    fn a_shell_reads_back_the_same_bytes() {
        for name in [&b"plain"[..], b"two words", b"it's", b"new\nline", b"\xff\\'", b"a\tb", b""] {
            let script = format!("printf %s {}", shell_quote(name));
            let output = std::process::Command::new("bash").arg("-c").arg(script).output().unwrap();
            assert_eq!(output.stdout, name);
        }
    }
}
