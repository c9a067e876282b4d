//! Tokens: who may call what.
//!
//! A token is 32 random bytes, shown once when it is made. The token file holds only its SHA-256 and its scope, one per
//! line: `sha256:<64 hex digits> <scope> # <note>`. A presented token is hashed and compared with every line in constant
//! time. Scopes contain each other: `admin` may do what `submit` may, `submit` what `read` may.

use std::fmt::Write as _;
use std::path::Path;

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::error::{Code, Problem};

/// Tokens start with this, so that secret scanners and people recognise one.
const PREFIX: &str = "tide_";
/// 10 000 tokens: each request compares with all of them (0.1 ms at this bound).
const TOKENS_MAX: usize = 10_000;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look: jobs, queues, events, values of the cache, metrics.
    Read,
    /// Submit, cancel and retry jobs, and work on them; publish; set and forget values of the cache.
    Submit,
    /// Pause, resume and purge queues; trim and delete streams; clear the cache.
    Admin,
}

impl Scope {
    /// Reads a scope's name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "read" => Some(Self::Read),
            "submit" => Some(Self::Submit),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }

    /// Its name in the token file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
        }
    }
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: probes, the page, the documentation.
    Public,
    /// A token of at least this scope, when tokens are configured.
    Needs(Scope),
}

/// Which token a caller presented: its line among the tokens, as long as the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenId(pub u32);

/// The tokens that are accepted.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// `None`: no token file, everybody on this machine may call.
    tokens: Option<Vec<Token>>,
}

#[derive(Debug, Clone)]
struct Token {
    digest: [u8; 32],
    scope: Scope,
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("token file {path}: failed to read it: {source}")]
    Unreadable {
        /// Its path.
        path: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A line is not a token.
    #[error("token file {path}, line {line}: {reason}; a line is `sha256:<64 hex digits> <read|submit|admin>`")]
    BadLine {
        /// Its path.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is nothing in it.
    #[error("token file {path}: it holds no token, so nobody could call; add one with `tidegate token create`")]
    Empty {
        /// Its path.
        path: String,
    },
}

impl Auth {
    /// Everybody may call.
    pub fn open() -> Self {
        Self::default()
    }

    /// Reads a token file. The second value is a warning about its permissions, if they deserve one.
    ///
    /// # Errors
    /// The first line that cannot be used, or that there is none.
    pub fn from_file(path: &Path) -> Result<(Self, Option<String>), TokenFileError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokenFileError::Unreadable { path: shown.clone(), source })?;
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_of = |reason| TokenFileError::BadLine { path: shown.clone(), line: index + 1, reason };
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            tokens.push(Token::parse(line).map_err(line_of)?);
            if tokens.len() > TOKENS_MAX {
                return Err(line_of("more than 10000 tokens"));
            }
        }
        if tokens.is_empty() {
            return Err(TokenFileError::Empty { path: shown });
        }
        Ok((Self { tokens: Some(tokens) }, loose_permissions(path)))
    }

    /// Whether callers need a token.
    pub fn is_required(&self) -> bool {
        self.tokens.is_some()
    }

    /// Lets a request through, and says with which token if one was needed; or says what it lacks.
    ///
    /// # Errors
    /// `unauthenticated` without a known token, `forbidden` with one of a lower scope.
    pub fn allow(&self, access: Access, headers: &HeaderMap) -> Result<Option<TokenId>, Problem> {
        let (Access::Needs(needed), Some(tokens)) = (access, &self.tokens) else { return Ok(None) };
        let Some(presented) = bearer(headers) else {
            let detail = "Send `Authorization: Bearer <token>`; make a token with `tidegate token create`.";
            return Err(Problem::new(Code::Unauthenticated, detail));
        };
        match find(tokens, presented) {
            Some((scope, id)) if scope >= needed => Ok(Some(id)),
            Some((scope, _)) => {
                let detail = format!("This needs the scope `{}`; the token has `{}`.", needed.name(), scope.name());
                Err(Problem::new(Code::Forbidden, detail))
            }
            None => Err(Problem::new(Code::Unauthenticated, "The token is not known to this server.")),
        }
    }
}

impl Token {
    fn parse(line: &str) -> Result<Self, &'static str> {
        let mut words = line.split_whitespace();
        let digest =
            words.next().and_then(|word| word.strip_prefix("sha256:")).ok_or("it does not start with `sha256:`")?;
        let digest = from_hex(digest).ok_or("the hash is not 64 hex digits")?;
        let scope = words.next().ok_or("the scope is missing")?;
        let scope = scope.split(',').map(Scope::parse).collect::<Option<Vec<_>>>().ok_or("the scope is not known")?;
        let scope = scope.into_iter().max().ok_or("the scope is missing")?;
        if words.next().is_some() {
            return Err("there is something after the scope");
        }
        Ok(Self { digest, scope })
    }
}

/// The scope of the presented token, and which it is. Looks at every token, whichever matches, so that time tells nothing.
fn find(tokens: &[Token], presented: &str) -> Option<(Scope, TokenId)> {
    let digest: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
    let mut found: Option<(Scope, TokenId)> = None;
    for (id, token) in (0..).map(TokenId).zip(tokens) {
        let is_equal: Choice = token.digest.ct_eq(&digest);
        if bool::from(is_equal) && found.is_none_or(|(scope, _)| scope < token.scope) {
            found = Some((token.scope, id));
        }
    }
    found
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A new token and its line for the token file.
#[derive(Debug)]
pub struct NewToken {
    /// To be given to the client; not kept anywhere.
    pub token: String,
    /// To be put into the token file.
    pub line: String,
}

/// Makes a token of this scope.
///
/// # Errors
/// When the system has no random bytes to give.
pub fn create_token(scope: Scope, note: &str) -> Result<NewToken, getrandom::Error> {
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret)?;
    let token = format!("{PREFIX}{}", to_hex(&secret));
    let digest = to_hex(&Sha256::digest(token.as_bytes()));
    let note: String = note.chars().filter(|c| !c.is_control()).collect();
    let note = if note.is_empty() { String::new() } else { format!(" # {note}") };
    Ok(NewToken { token, line: format!("sha256:{digest} {}{note}", scope.name()) })
}

#[cfg(unix)]
fn loose_permissions(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        format!("token file {}: others than its owner may use it (mode {mode:o}); `chmod 600` it", path.display())
    })
}

#[cfg(not(unix))]
fn loose_permissions(_: &Path) -> Option<String> {
    None
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    fn auth(line: &str) -> Auth {
        Auth { tokens: Some(vec![Token::parse(line).unwrap()]) }
    }

    #[test]
    fn a_created_token_opens_what_its_line_says_and_no_more() {
        let made = create_token(Scope::Submit, "").unwrap();
        let auth = auth(&made.line);
        assert!(auth.allow(Access::Needs(Scope::Read), &headers(&made.token)).is_ok());
        assert!(auth.allow(Access::Needs(Scope::Submit), &headers(&made.token)).is_ok());
        let refused = auth.allow(Access::Needs(Scope::Admin), &headers(&made.token)).unwrap_err();
        assert_eq!(refused.code(), Code::Forbidden);
    }

    #[test]
    fn an_unknown_or_missing_token_is_unauthenticated() {
        let auth = auth(&create_token(Scope::Admin, "").unwrap().line);
        let other = create_token(Scope::Admin, "").unwrap().token;
        for headers in [HeaderMap::new(), headers(&other), headers("")] {
            assert_eq!(auth.allow(Access::Needs(Scope::Read), &headers).unwrap_err().code(), Code::Unauthenticated);
        }
        assert!(auth.allow(Access::Public, &HeaderMap::new()).is_ok());
    }

    #[test]
    fn the_file_never_holds_the_token() {
        let made = create_token(Scope::Read, "for\nada").unwrap();
        assert!(!made.line.contains(made.token.trim_start_matches(PREFIX)));
        assert_eq!(made.line.lines().count(), 1);
    }

    #[test]
    fn a_bad_line_is_refused_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::fs::write(&path, "# tokens\n\nsha256:abc read\n").unwrap();
        let error = Auth::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("line 3: the hash is not 64 hex digits"), "{error}");
        std::fs::write(&path, "# none\n").unwrap();
        assert!(matches!(Auth::from_file(&path), Err(TokenFileError::Empty { .. })));
    }
}
