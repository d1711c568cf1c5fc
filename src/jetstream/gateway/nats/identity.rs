//! The credentials, given anew for each connection.

use std::io;
use std::path::{Path, PathBuf};

use async_nats::{Auth, AuthError};
use nkeys::KeyPair;

use crate::Error;
use crate::error::Invalid;
use crate::jetstream::config::Credentials;

/// The kinds of credentials.
#[derive(Clone)]
pub(super) enum Identity {
    /// A text that is the same for each connection.
    Fixed { user: Option<String>, password: Option<String>, token: Option<String> },
    /// A signature.
    Nkey(String),
    /// A JWT and a signature, from a file that is read for each connection, since a JWT expires and its
    /// renewal replaces the file.
    File(PathBuf),
}

impl Identity {
    /// Checks the credentials as far as possible without a server; `None` for no credentials.
    pub(super) fn new(credentials: Credentials) -> Result<Option<Self>, Error> {
        let refuse = |problem: String| Error::from(Invalid::new("credentials", problem));
        Ok(Some(match credentials {
            Credentials::None => return Ok(None),
            Credentials::UserPassword { user, password } => {
                let password = Some(password.reveal().to_owned());
                Self::Fixed { user: Some(user), password, token: None }
            }
            Credentials::Token(token) => {
                let token = Some(token.reveal().to_owned());
                Self::Fixed { user: None, password: None, token }
            }
            Credentials::Nkey(seed) => {
                // A seed from a file ends with a line break.
                let seed = seed.reveal().trim();
                user_key(seed).map_err(|()| refuse("hold no seed of a user nkey (SU…)".into()))?;
                Self::Nkey(seed.to_owned())
            }
            Credentials::File(path) => {
                read(&path).map_err(refuse)?;
                Self::File(path)
            }
        }))
    }

    /// The answer to a server that asks for a signature of `nonce`.
    pub(super) async fn answer(self, nonce: Vec<u8>) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        let key = match self {
            Self::Fixed { user, password, token } => {
                (auth.username, auth.password, auth.token) = (user, password, token);
                return Ok(auth);
            }
            Self::Nkey(seed) => {
                let key = user_key(&seed).map_err(|()| AuthError::new("no seed of a user nkey"))?;
                auth.nkey = Some(key.public_key());
                key
            }
            Self::File(path) => {
                // A file system that hangs must not block a thread of the runtime.
                let file = tokio::task::spawn_blocking(move || read(&path)).await;
                let file = file.map_err(AuthError::new)?.map_err(AuthError::new)?;
                auth.jwt = Some(file.jwt);
                file.key
            }
        };
        auth.signature = Some(key.sign(&nonce).map_err(AuthError::new)?);
        Ok(auth)
    }
}

fn user_key(seed: &str) -> Result<KeyPair, ()> {
    let key = KeyPair::from_seed(seed).map_err(drop)?;
    if key.key_pair_type() == nkeys::KeyPairType::User { Ok(key) } else { Err(()) }
}

/// The content of a credentials file.
struct File {
    jwt: String,
    key: KeyPair,
}

/// Reads a credentials file. The error names the file and shows nothing of its content.
fn read(path: &Path) -> Result<File, String> {
    let unusable = |what: String| format!("file {} cannot be used: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error: io::Error| {
        // The error for bytes that are no text does not show them.
        unusable(error.to_string())
    })?;
    parse(&text).map_err(|what| unusable(what.to_owned()))
}

/// Finds the JWT and the seed, each between two lines of dashes. Ignores what editors change: a byte order mark, line
/// breaks of any kind, spaces, a missing line break at the end.
fn parse(text: &str) -> Result<File, &'static str> {
    let mut blocks = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
        if line.starts_with("---") && line.ends_with("---") {
            match open.take() {
                None => open = Some(Vec::new()),
                Some(block) => blocks.push(block),
            }
        } else if let Some(block) = &mut open
            && !line.is_empty()
        {
            block.push(line);
        }
    }
    let mut words = blocks.into_iter().map(|block| match *block {
        [word] if !word.contains(char::is_whitespace) => Some(word),
        _ => None,
    });
    let jwt = words.next().flatten().ok_or("it has no user JWT between BEGIN and END")?;
    let seed = words.next().flatten().ok_or("it has no nkey seed between BEGIN and END")?;
    let key = user_key(seed).map_err(|()| "its seed is no seed of a user nkey (SU…)")?;
    Ok(File { jwt: jwt.to_owned(), key })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn text() -> (String, String) {
        let seed = KeyPair::new_user().seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\na.b-c_d.e\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             NKEY Seed printed below can be used to sign and prove identity.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        (text, seed)
    }

    #[rstest]
    #[case::as_it_is(|text: &str| text.to_owned())]
    #[case::crlf(|text: &str| text.replace('\n', "\r\n"))]
    #[case::mark(|text: &str| format!("\u{feff}{text}"))]
    #[case::no_last_line_break(|text: &str| text.trim_end().to_owned())]
    #[case::spaces(|text: &str| text.replace('\n', " \n  "))]
    #[case::blank_lines(|text: &str| text.replace('\n', "\n\n"))]
    fn what_an_editor_adds_to_a_file_does_not_matter(#[case] edit: fn(&str) -> String) {
        let (text, seed) = text();
        let file = parse(&edit(&text)).unwrap();
        assert_eq!(file.jwt, "a.b-c_d.e");
        assert_eq!(file.key.seed().unwrap(), seed);
    }

    #[rstest]
    #[case(|_: &str| String::new(), "it has no user JWT")]
    #[case(|text: &str| text.replace("a.b-c_d.e", ""), "it has no user JWT")]
    #[case(|text: &str| text.replace("a.b-c_d.e", "a b"), "it has no user JWT")]
    #[case(|text: &str| text.replace("SU", "XX"), "its seed is no seed")]
    #[case(|text: &str| text.split("*****").next().unwrap_or_default().to_owned(), "it has no nkey seed")]
    fn what_is_no_file_of_credentials_is_named(
        #[case] edit: fn(&str) -> String,
        #[case] said: &str,
    ) {
        let (text, _) = text();
        let error = parse(&edit(&text)).err().unwrap();
        assert!(error.starts_with(said), "{error}");
    }

    #[test]
    fn a_seed_may_end_with_a_line_break() {
        let seed = KeyPair::new_user().seed().unwrap();
        for end in ["", "\n", "\r\n", " \n"] {
            assert!(
                Identity::new(Credentials::Nkey(format!("{seed}{end}").into())).is_ok(),
                "{end:?}"
            );
        }
        // This is a seed, but not a user's.
        let account = KeyPair::new_account().seed().unwrap();
        for wrong in ["", "SU", &account] {
            assert!(Identity::new(Credentials::Nkey(wrong.into())).is_err(), "{wrong:?}");
        }
    }
}
