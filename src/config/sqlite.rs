//! Makes the `SQLite` store's configuration from the section `[sqlite]`.

use crate::config::{SqliteSection, StoreConfig};
use crate::{Error, SqliteConfig};

impl StoreConfig {
    /// Returns the `SQLite` store's configuration.
    ///
    /// Errors: [`Error::Invalid`] for a setting outside its limits.
    pub fn sqlite(&self) -> Result<SqliteConfig, Error> {
        let SqliteSection { path, must_exist, mode } = self.sqlite.clone();
        let config = SqliteConfig {
            must_exist,
            mode,
            op_timeout: self.op_timeout(),
            ..SqliteConfig::new(path)
        };
        config.check()?;
        Ok(config)
    }
}
