use std::path::PathBuf;

use crate::secret::Secret;

/// A store's credentials. `Debug` shows no secret (clause TYPE-5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
        password: Secret,
    },
    /// A token.
    Token(Secret),
    /// The seed of a user nkey (`SU…`).
    Nkey(Secret),
    /// A file with a user's JWT and nkey seed, as `nsc` makes it. The file is read anew for each
    /// connection, so that a JWT can be renewed before the old one expires.
    File(PathBuf),
}
