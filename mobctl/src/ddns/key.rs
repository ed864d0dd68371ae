//! TSIG keys in the forms that people have them.
//!
//! - what `tsig-keygen` of BIND prints: `key "name" { algorithm hmac-sha256; secret "..."; };`
//! - what `keymgr -t` of Knot prints: the same in YAML
//! - `Kname.+163+id.private` and `.key`, which `dnssec-keygen -a HMAC-SHA256` of older BINDs made
//! - one line `hmac-sha256:name:secret`, as for `nsupdate -y`
//!
//! Algorithms from HMAC-SHA-256 up (RFC 8945 section 6); MD5 and SHA-1 are refused.

use crate::dns::TsigKey;
use crate::exit::{Exit, Failure};
use crate::keyfile;
use domain::base::name::Name;
use domain::tsig::{Algorithm, KeyName};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use zeroize::Zeroizing;

/// What is wrong with the text of a key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// None of the forms.
    Form,
    /// More than one key in it.
    Several,
    /// One of the parts is missing.
    Missing(&'static str),
    /// An algorithm that is too weak, or not known.
    Algorithm(String),
    /// The name cannot be one.
    Name(String),
    /// The secret is not in base 64, or too short.
    Secret,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("no TSIG key in it"),
            Self::Several => f.write_str("more than one key in it"),
            Self::Missing(what) => write!(f, "the key in it has no {what}"),
            Self::Algorithm(name) => {
                write!(f, "the algorithm {name} will not do: hmac-sha256, hmac-sha384 or hmac-sha512")
            }
            Self::Name(name) => write!(f, "\"{name}\" is no name of a key"),
            Self::Secret => f.write_str("the secret is not in base 64, or shorter than 16 bytes"),
        }
    }
}

impl std::error::Error for KeyError {}

/// Reads the key in the file at `path`, which nobody but its owner may read.
///
/// # Errors
/// A [`Failure`] that says what to do; never a part of the secret.
pub fn read(path: &Path) -> Result<TsigKey, Failure> {
    let shown = path.display();
    let bytes = keyfile::read_secret(path, |_| {
        "Make a key (tsig-keygen NAME, where BIND is installed), put it there, and give it to the name server too"
            .into()
    })?;
    let file_name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    parse(&bytes, &file_name).map_err(|error| {
        Failure::new(Exit::Config, format!("{shown}: {error}"))
            .advise("A key file holds what tsig-keygen prints; see KEY FILES in mobctl.conf(5) for the other forms")
    })
}

/// The key in the text of a key file with this name.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &[u8], file_name: &str) -> Result<TsigKey, KeyError> {
    let text = Zeroizing::new(String::from_utf8(text.to_vec()).map_err(|_| KeyError::Form)?);
    if text.contains("Private-key-format:") {
        return private(&text, file_name);
    }
    if let Some(parts) = key_record(&text) {
        return make(parts);
    }
    if let Some(parts) = one_line(&text) {
        return make(parts);
    }
    if text.lines().any(|line| line.trim_end() == "key:") {
        return yaml(&text);
    }
    clause(&text)
}

/// Name, algorithm, secret.
type Parts<'a> = (&'a str, &'a str, &'a str);

fn make((name, algorithm, secret): Parts<'_>) -> Result<TsigKey, KeyError> {
    let lower = algorithm.trim_end_matches('.').to_ascii_lowercase();
    let kind = match Algorithm::from_str(&lower) {
        Ok(kind @ (Algorithm::Sha256 | Algorithm::Sha384 | Algorithm::Sha512)) => kind,
        _ => return Err(KeyError::Algorithm(algorithm.chars().take(40).filter(|c| !c.is_control()).collect())),
    };
    let shown = || KeyError::Name(name.chars().take(80).filter(|c| !c.is_control()).collect());
    // Key names are compared without regard to case, but signed in lower case (RFC 8945 section 4.3.3).
    let name = Name::<Vec<u8>>::from_str(&name.to_ascii_lowercase()).map_err(|_| shown())?;
    if name.is_root() {
        return Err(shown());
    }
    let name = KeyName::from_str(&name.to_string()).map_err(|_| shown())?;
    let secret: Zeroizing<Vec<u8>> =
        Zeroizing::new(domain::utils::base64::decode(secret).map_err(|_| KeyError::Secret)?);
    if secret.len() < 16 {
        return Err(KeyError::Secret);
    }
    TsigKey::new(kind, &secret, name).map_err(|_| KeyError::Secret)
}

/// `Key:` and `Algorithm:` of a `.private` file; the name is in the file's own name.
fn private(text: &str, file_name: &str) -> Result<TsigKey, KeyError> {
    let field = |label: &str| text.lines().find_map(|line| line.strip_prefix(label)).map(str::trim);
    let algorithm = field("Algorithm:").ok_or(KeyError::Missing("algorithm"))?;
    let number = algorithm.split_whitespace().next().unwrap_or_default();
    let secret = field("Key:").ok_or(KeyError::Missing("secret"))?;
    let name = file_name.strip_prefix('K').and_then(|name| name.split_once("+")).map(|(name, _)| name);
    let name = name.ok_or(KeyError::Missing("name (a .private file is called Kname.+163+12345.private)"))?;
    make((name, numbered(number), secret))
}

/// The numbers of HMACs in files of dnssec-keygen.
fn numbered(number: &str) -> &str {
    match number {
        "157" => "hmac-md5",
        "161" => "hmac-sha1",
        "162" => "hmac-sha224",
        "163" => "hmac-sha256",
        "164" => "hmac-sha384",
        "165" => "hmac-sha512",
        other => other,
    }
}

/// `name. IN KEY 512 3 163 secret`: a `.key` file.
fn key_record(text: &str) -> Option<Parts<'_>> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(';'));
    let (line, rest) = (lines.next()?, lines.next());
    let at = line.find(" KEY ").filter(|_| rest.is_none())?;
    let name = line.split_whitespace().next()?;
    let mut fields = line.get(at + 5..)?.split_whitespace();
    let number = fields.nth(2)?;
    let secret = fields.next()?;
    fields.next().is_none().then_some((name, numbered(number), secret))
}

/// `algorithm:name:secret`.
fn one_line(text: &str) -> Option<Parts<'_>> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (line, rest) = (lines.next()?, lines.next());
    let mut parts = line.splitn(3, ':').map(str::trim);
    let (algorithm, name, secret) = (parts.next()?, parts.next()?, parts.next()?);
    (rest.is_none() && algorithm.starts_with("hmac-")).then_some((name, algorithm, secret))
}

/// Knot's form.
fn yaml(text: &str) -> Result<TsigKey, KeyError> {
    let field = |label: &str| -> Result<Option<&str>, KeyError> {
        let mut values = text.lines().filter_map(|line| {
            let line = line.trim().trim_start_matches('-').trim_start();
            line.strip_prefix(label)?.trim_start().strip_prefix(':').map(|value| value.trim().trim_matches('"'))
        });
        let value = values.next();
        if values.next().is_some() { Err(KeyError::Several) } else { Ok(value) }
    };
    let need = |label, what| field(label).and_then(|value| value.ok_or(KeyError::Missing(what)));
    make((need("id", "id")?, need("algorithm", "algorithm")?, need("secret", "secret")?))
}

/// BIND's form.
fn clause(text: &str) -> Result<TsigKey, KeyError> {
    let plain = Zeroizing::new(without_comments(text));
    let words = words(&plain);
    let mut words = words.iter().copied();
    if words.next() != Some("key") {
        return Err(KeyError::Form);
    }
    let name = words.next().filter(|name| *name != "{").ok_or(KeyError::Missing("name"))?;
    if words.next() != Some("{") {
        return Err(KeyError::Form);
    }
    let (mut algorithm, mut secret) = (None, None);
    loop {
        match words.next() {
            Some("algorithm") => algorithm = words.next(),
            Some("secret") => secret = words.next(),
            Some("}") => break,
            Some(";") => {}
            _ => return Err(KeyError::Form),
        }
    }
    if words.any(|word| word != ";") {
        return Err(KeyError::Several);
    }
    make((name, algorithm.ok_or(KeyError::Missing("algorithm"))?, secret.ok_or(KeyError::Missing("secret"))?))
}

/// Without `//`, `#` and `/* */`, as named.conf has them; not in strings.
fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                quoted = !quoted;
                plain.push(c);
            }
            '#' if !quoted => {
                rest.by_ref().find(|c| *c == '\n');
                plain.push('\n');
            }
            '/' if !quoted && rest.peek() == Some(&'/') => {
                rest.by_ref().find(|c| *c == '\n');
                plain.push('\n');
            }
            '/' if !quoted && rest.peek() == Some(&'*') => {
                rest.next();
                let mut last = ' ';
                rest.by_ref().find(|c| std::mem::replace(&mut last, *c) == '*' && *c == '/');
                plain.push(' ');
            }
            _ => plain.push(c),
        }
    }
    plain
}

/// Words, strings without their quotes, and braces and semicolons by themselves.
fn words(text: &str) -> Vec<&str> {
    let mut list = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '{' | '}' | ';' => rest.split_at(1),
            '"' => {
                let inner = rest.get(1..).unwrap_or_default();
                inner.split_once('"').unwrap_or((inner, ""))
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "{};\"".contains(c)).unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        list.push(word);
        rest = after.trim_start();
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "bW9iY29ubi10ZXN0LXNlY3JldC0wMTIzNDU2Nzg5YWI=";

    fn shown(key: &TsigKey) -> String {
        format!("{} {}", key.name(), key.algorithm())
    }

    #[test]
    fn every_form() {
        for (text, file, expected) in [
            (
                format!("key \"laptop-key\" {{\n\talgorithm hmac-sha256;\n\tsecret \"{SECRET}\";\n}};\n"),
                "ddns.key",
                "laptop-key hmac-sha256",
            ),
            (
                format!("# a\n// b\n/* c \" */ key Laptop.Example. {{ secret {SECRET} ; algorithm HMAC-SHA512; }} ;"),
                "x",
                "laptop.example hmac-sha512",
            ),
            (
                format!(
                    "# hmac-sha384:laptop:{SECRET}\nkey:\n- id: laptop.\n  algorithm: hmac-sha384\n  secret: {SECRET}\n"
                ),
                "x",
                "laptop hmac-sha384",
            ),
            (
                format!("Private-key-format: v1.3\nAlgorithm: 163 (HMAC_SHA256)\nKey: {SECRET}\nBits: AAA=\n"),
                "Klaptop.example.org.+163+04711.private",
                "laptop.example.org hmac-sha256",
            ),
            (
                format!("laptop.example.org. IN KEY 512 3 165 {SECRET}\n"),
                "Klaptop.example.org.+165+04711.key",
                "laptop.example.org hmac-sha512",
            ),
            (format!("hmac-sha256:laptop:{SECRET}\n"), "x", "laptop hmac-sha256"),
        ] {
            let key = parse(text.as_bytes(), file).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(shown(&key), expected, "{text}");
        }
    }

    #[test]
    fn what_will_not_do() {
        let clause = |name: &str, algorithm: &str, secret: &str| {
            format!("key \"{name}\" {{ algorithm {algorithm}; secret \"{secret}\"; }};")
        };
        for (text, error) in [
            (String::new(), KeyError::Form),
            ("options { };".into(), KeyError::Form),
            (clause("a", "hmac-md5", SECRET), KeyError::Algorithm("hmac-md5".into())),
            (clause("a", "hmac-sha1", SECRET), KeyError::Algorithm("hmac-sha1".into())),
            (clause("a", "hmac-sha256", "not base 64!"), KeyError::Secret),
            (clause("a", "hmac-sha256", "c2hvcnQ="), KeyError::Secret),
            (clause("", "hmac-sha256", SECRET), KeyError::Name(String::new())),
            (clause("a..b", "hmac-sha256", SECRET), KeyError::Name("a..b".into())),
            (format!("key a {{ secret \"{SECRET}\"; }};"), KeyError::Missing("algorithm")),
            ("key a { algorithm hmac-sha256; };".into(), KeyError::Missing("secret")),
            (clause("a", "hmac-sha256", SECRET).repeat(2), KeyError::Several),
            (format!("hmac-sha1:laptop:{SECRET}"), KeyError::Algorithm("hmac-sha1".into())),
            (format!("a. IN KEY 512 3 157 {SECRET}"), KeyError::Algorithm("hmac-md5".into())),
        ] {
            assert_eq!(parse(text.as_bytes(), "x").err(), Some(error), "{text}");
        }
        let nameless = format!("Private-key-format: v1.3\nAlgorithm: 163 (HMAC_SHA256)\nKey: {SECRET}\n");
        assert!(matches!(parse(nameless.as_bytes(), "laptop.private"), Err(KeyError::Missing(_))));
    }

    #[test]
    fn a_failure_never_shows_the_secret() {
        let text = format!("key a {{ algorithm hmac-sha256; secret \"{SECRET}!\"; }};");
        let error = parse(text.as_bytes(), "x").err().map(|error| error.to_string()).unwrap();
        assert!(!error.contains(&SECRET[..8]), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", parts in "[-a-z0-9{};\"/*# :\n]{0,80}") {
            let _ = parse(text.as_bytes(), &text);
            let _ = parse(parts.as_bytes(), "K.+");
            let _ = parse(format!("key a {{{parts}").as_bytes(), "x");
            let _ = parse(format!("key:\n{parts}").as_bytes(), "x");
        }
    }
}
