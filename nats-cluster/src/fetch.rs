//! Binaries of pinned versions, fetched once and kept under the target directory.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// The version that tests use.
pub(super) const PINNED: &str = "2.15.1";
/// The last version without atomic batches.
pub(super) const TOO_OLD: &str = "2.11.11";
/// A version that opens data of a newer version, and ignores entries that it does not know.
pub(super) const IGNORANT: &str = "2.11.4";

/// The script that fetches binaries. The script is a part of the library, so that packages that
/// depend on the library need no other file.
const SCRIPT: &str = include_str!("../nats-server.py");

/// The path of the binary of a version, which may not be there yet.
pub(super) fn place(version: &str) -> PathBuf {
    target_dir().join("nats-server").join(version).join("nats-server")
}

/// Fetches the binary, unless it is there already. Many processes may call this at once.
pub(super) fn fetch(version: &str) -> Result<PathBuf, String> {
    let python = ["python3", "python"]
        .into_iter()
        .find(|name| super::provision::on_path(name).is_some())
        .ok_or("no python3 on PATH")?;
    let mut child = Command::new(python)
        .arg("-")
        .arg(target_dir().join("nats-server"))
        .arg(version)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {python}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // If the script has ended early, stderr says why.
        let _ = stdin.write_all(SCRIPT.as_bytes());
    }
    let done = child.wait_with_output().map_err(|error| format!("cannot run {python}: {error}"))?;
    let path = PathBuf::from(String::from_utf8_lossy(&done.stdout).trim());
    if done.status.success() && path.is_file() {
        return Ok(path);
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(said.lines().last().unwrap_or("the fetching script failed and said nothing").to_owned())
}

/// The build's target directory: `CARGO_TARGET_DIR`, or the one into which this program was built,
/// or that of the workspace in which it runs, or else the system's temporary directory.
fn target_dir() -> PathBuf {
    let named = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let built = || {
        let exe = env::current_exe().ok()?;
        exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).map(Path::to_owned)
    };
    let around = || {
        let here = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let here = here.or_else(|| env::current_dir().ok())?;
        let root = here.ancestors().find(|dir| dir.join("Cargo.lock").is_file())?;
        Some(root.join("target"))
    };
    let dir = named.or_else(built).or_else(around);
    let dir = dir.unwrap_or_else(|| env::temp_dir().join("membership"));
    fs::canonicalize(&dir).unwrap_or(dir)
}
