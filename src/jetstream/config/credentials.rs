use std::fmt;
use std::path::PathBuf;

/// A store's credentials.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// No credentials.
    #[default]
    None,
    /// A user and a password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Token(String),
    /// The seed of a user nkey (`SU…`).
    Nkey(String),
    /// A file with a user's JWT and nkey seed, as `nsc` makes it. It is read anew for each
    /// connection, so that a JWT that is renewed in time goes on where the old one ends.
    File(PathBuf),
}

/// Shows no secret (clause TYPE-5).
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::UserPassword { user, password } => {
                write!(f, "UserPassword {{ user: {user:?}, password: <{} bytes> }}", password.len())
            }
            Self::Token(token) => write!(f, "Token(<{} bytes>)", token.len()),
            Self::Nkey(seed) => write!(f, "Nkey(<{} bytes>)", seed.len()),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}
