//! Faults that turn back time: older files under servers, and older servers on newer files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use futures::future::try_join_all;

use super::{Cluster, NatsError, NatsServer};

impl Cluster {
    /// Stops every server in good order, copies its data, and starts it again. Does not wait until
    /// the server has joined: see [`wait_ready`](Self::wait_ready).
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`run`](Self::run); [`NatsError::Io`] for files.
    pub async fn remember(&self) -> Result<(), NatsError> {
        try_join_all((0..self.size()).map(|node| self.stop(node))).await?;
        for node in self.nodes() {
            let to = remembered(node.store());
            remove(&to).and_then(|()| copy(node.store(), &to)).map_err(NatsError::io(COPY))?;
        }
        try_join_all((0..self.size()).map(|node| self.run(node))).await?;
        Ok(())
    }

    /// Puts back the data of a server as they were [remembered](Self::remember). If a `stream` is
    /// given, only the data of that stream. The server must be down.
    ///
    /// # Errors
    /// [`NatsError::NoNode`]; [`NatsError::Io`] for files.
    pub fn put_back(&self, node: usize, stream: Option<&str>) -> Result<(), NatsError> {
        let store = self.node(node)?.store();
        let part = stream.map(|stream| Path::new("jetstream/$G/streams").join(stream));
        let part = part.unwrap_or_default();
        let (from, to) = (remembered(store).join(&part), store.join(&part));
        remove(&to).and_then(|()| copy(&from, &to)).map_err(NatsError::io(COPY))
    }

    /// Cuts a server's message files back to their lengths when it was
    /// [remembered](Self::remember).
    ///
    /// Message files that did not exist then are removed. The server must be down.
    ///
    /// # Errors
    /// [`NatsError::NoNode`]; [`NatsError::Io`] for files.
    pub fn cut_tails(&self, node: usize) -> Result<(), NatsError> {
        let store = self.node(node)?.store();
        let cut = || {
            let before = lengths(&remembered(store))?;
            for (name, length) in lengths(store)? {
                let path = store.join(&name);
                match before.get(&name) {
                    Some(before) if *before < length => {
                        fs::File::options().write(true).open(path)?.set_len(*before)?;
                    }
                    Some(_) => {}
                    None => fs::remove_file(path)?,
                }
            }
            Ok(())
        };
        cut().map_err(NatsError::io(COPY))
    }

    /// Kills every server, and starts another program on its data. Does not wait until the server
    /// has joined.
    ///
    /// # Errors
    /// As [`kill`](Self::kill) and [`run`](Self::run).
    pub async fn serve_with(&self, server: &NatsServer) -> Result<(), NatsError> {
        try_join_all((0..self.size()).map(|node| self.kill(node))).await?;
        for node in self.nodes() {
            node.serve_with(server);
        }
        try_join_all((0..self.size()).map(|node| self.run(node))).await?;
        Ok(())
    }
}

const COPY: &str = "copy the files of a server";

fn remembered(store: &Path) -> PathBuf {
    store.with_extension("remembered")
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// The message files below a folder, and how long each is.
fn lengths(folder: &Path) -> io::Result<BTreeMap<PathBuf, u64>> {
    fn walk(folder: &Path, below: &Path, all: &mut BTreeMap<PathBuf, u64>) -> io::Result<()> {
        for entry in fs::read_dir(folder.join(below))? {
            let entry = entry?;
            let name = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                walk(folder, &name, all)?;
            } else if name.extension().is_some_and(|end| end == "blk") {
                all.insert(name, entry.metadata()?.len());
            }
        }
        Ok(())
    }
    let mut all = BTreeMap::new();
    walk(folder, Path::new(""), &mut all)?;
    Ok(all)
}
