//! Servers in containers.
//!
//! The containers share this machine's network and process ids, and run as the user that runs the
//! tests. So the servers listen on loopback, and are stopped, frozen and killed by signals, like
//! other servers. This needs an engine on this machine itself. The engine of a desktop program runs
//! in a virtual machine.

use std::path::{Path, PathBuf};

use testcontainers::core::Mount;
use testcontainers::runners::{AsyncBuilder as _, AsyncRunner as _};
use testcontainers::{
    ContainerAsync, ContainerRequest, GenericBuildableImage, GenericImage, ImageExt as _,
};

use super::{background, fetch};

/// The name of the image that is built if the official one cannot be pulled.
const BUILT: &str = "membership-nats-server";

const DOCKERFILE: &str = r#"FROM scratch
COPY nats-server /nats-server
ENTRYPOINT ["/nats-server"]
"#;

/// An image that the engine holds.
#[derive(Clone, Debug)]
pub(super) struct Image {
    name: String,
    tag: String,
}

impl Image {
    /// Finds the official image of the pinned version. If it cannot be pulled, builds one from the
    /// pinned binary. Blocks.
    pub(super) fn find() -> Result<Self, String> {
        let runtime = background::runtime().map_err(|error| error.to_string())?;
        // The work runs on a thread of its own. The caller may be on a runtime's thread, which must
        // not block.
        let found = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(obtain())).join());
        found.unwrap_or_else(|_| Err("the Docker client failed".to_owned()))
    }

    /// Whether this is the official image.
    pub(super) fn is_official(&self) -> bool {
        self.name != BUILT
    }
}

async fn obtain() -> Result<Image, String> {
    let official = Image { name: "nats".to_owned(), tag: fetch::PINNED.to_owned() };
    let pulled = GenericImage::new(&official.name, &official.tag).pull_image().await;
    let Err(why) = pulled else { return Ok(official) };
    let why = format!("no image nats:{} ({})", fetch::PINNED, one_line(&why));
    let binary = tokio::task::spawn_blocking(|| fetch::fetch(fetch::PINNED)).await;
    let binary = binary.map_err(|_| why.clone())?.map_err(|error| format!("{why}; {error}"))?;
    let image = GenericBuildableImage::new(BUILT, fetch::PINNED)
        .with_dockerfile_string(DOCKERFILE)
        .with_file(binary, "nats-server");
    let built = image.build_image().await;
    let _ = built.map_err(|error| format!("{why}; cannot build one ({})", one_line(&error)))?;
    Ok(Image { name: BUILT.to_owned(), tag: fetch::PINNED.to_owned() })
}

/// Returns the first line of an error, since errors of the driver contain the engine's whole
/// answers.
fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// A container. The container is removed when its server ends, or when this value is dropped.
#[derive(Debug)]
pub(super) struct Container(Option<Box<ContainerAsync<GenericImage>>>);

impl Container {
    /// Starts a server in a container. All its files must be under `dir`.
    pub(super) async fn start(
        image: &Image,
        dir: &Path,
        config: &Path,
        log: &Path,
    ) -> Result<Self, String> {
        let runtime = background::runtime().map_err(|error| error.to_string())?;
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        let user = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let request: ContainerRequest<_> = GenericImage::new(&image.name, &image.tag)
            .with_cmd(["-c".to_owned(), shown(config), "-l".to_owned(), shown(log)])
            .with_network("host")
            .with_user(format!("{}:{}", user.0, user.1))
            .with_mount(Mount::bind_mount(shown(dir), shown(dir)))
            .with_host_config_modifier(|host| {
                host.pid_mode = Some("host".to_owned());
                host.auto_remove = Some(true);
            });
        let started = runtime.spawn(request.start()).await.map_err(|error| error.to_string())?;
        Ok(Self(Some(Box::new(started.map_err(|error| one_line(&error))?))))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let Some(container) = self.0.take() else { return };
        let Ok(runtime) = background::runtime() else { return };
        // The container is dropped on a thread of its own: its destructor waits for the engine, and
        // a runtime's thread must not block.
        let drop = move || {
            let _guard = runtime.enter();
            drop(container);
        };
        let _ = std::thread::spawn(drop).join();
    }
}

/// Finds the id of the process that wrote `nats-server_PID.ports`.
pub(super) fn pid_of(ports: &Path) -> Option<i32> {
    let stem: PathBuf = ports.file_stem()?.into();
    stem.to_str()?.rsplit('_').next()?.parse().ok()
}
