#!/usr/bin/env python3
"""Tests the mutants of the stores and the model, with all mutants in one build.

`cargo mutants` builds and tests once for each mutant, which takes days here. This script takes the list of
`cargo mutants`, and writes all mutants into one copy of the sources, each behind a switch (Untch, Offutt,
Harrold: mutation analysis using mutant schemata, 1993). It builds that copy once. Then it runs each test
alone, to find out which switches the test reaches. On each mutant it runs only the tests that reach its
switch, quick ones first, until one fails.

    tools/mutants.py build            once, and after each change of the sources
    tools/mutants.py hunt sqlite      resumes where the last hunt ended; lists the survivors, and fails if there are any

Needs `cargo install cargo-mutants` and `pip install tree-sitter tree-sitter-rust`. Works under target/mutants.
Mutants that no test can notice are listed with the reasons in .cargo/mutants.toml. `cargo mutants` leaves them
out, and so does this script.
"""

import argparse
import collections
import concurrent.futures
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "mutants"
SOURCE = WORK / "source"
# `build` writes these files, and `hunt` reads them.
KEPT, TESTS, RESULTS = WORK / "mutants.json", WORK / "tests.json", WORK / "results.jsonl"
# How long each test takes when it runs alone, and which switches it reaches.
REACHED = WORK / "reached.jsonl"
EXAMINED = ["src/**", "conformance/src/model.rs", "conformance/src/model/**"]
INSTRUMENTS = ["src/**/testing*", "src/**/testing/**", "src/**/simulation*", "src/**/simulation/**", "src/**/defect.rs",
               "src/**/fuse.rs", "src/**/seeded.rs"]

SWITCH = """
#[doc(hidden)]
pub fn mutant(id: u32) -> bool {
    use std::io::Write as _;
    static ACTIVE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    type Reached = std::sync::Mutex<(std::collections::HashSet<u32>, std::fs::File)>;
    static REACHED: std::sync::OnceLock<Option<Reached>> = std::sync::OnceLock::new();
    let reached = REACHED.get_or_init(|| {
        let path = std::env::var_os("MUTANTS_REACHED")?;
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path).ok()?;
        Some(std::sync::Mutex::new((std::collections::HashSet::new(), file)))
    });
    if let Some(reached) = reached {
        let mut reached = reached.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if reached.0.insert(id) {
            let _ = reached.1.write_all(format!("{id}\n").as_bytes());
        }
    }
    *ACTIVE.get_or_init(|| std::env::var("MUTANT").ok().and_then(|m| m.parse().ok()).unwrap_or(0)) == id
}
"""

# The tests that may notice a mutant, by the place of the mutant: a test binary and its arguments.
LIB, MODEL = "lib", "conformance-lib"
SUITE, SIMULATE = "tests/conformance.rs", "tests/simulate.rs"
R1 = (SUITE, ["jetstream-r1::", "--skip", "histories"])
AREAS = {
    # Simulated servers replace this code, so tests on them cannot notice its mutants.
    "gateway": (r"src/jetstream/gateway/nats", [(LIB, ["jetstream"]), ("tests/jetstream/main.rs", []), R1]),
    "jetstream": (r"src/jetstream", [
        (LIB, ["jetstream"]), (SIMULATE, ["--skip", "defect", "--skip", "broken", "--skip", "is_held"]),
        ("tests/jetstream/main.rs", []), R1, (SIMULATE, ["is_held"])]),
    "sqlite": (r"src/(sqlite|gate\.rs)", [
        (LIB, ["sqlite"]), (SUITE, ["sqlite::golden"]), ("tests/sqlite/main.rs", []),
        (SUITE, ["sqlite::", "--skip", "histories", "--skip", "killed", "--skip", "power_cuts"]),
        (SUITE, ["sqlite::killed"]), (SUITE, ["sqlite::power_cuts"])]),
    "memory": (r"src/memory", [
        (LIB, []), (SUITE, ["memory::golden"]), (SUITE, ["memory::", "--skip", "histories"]),
        (SUITE, ["memory::histories"])]),
    "model": (r"conformance/src/model", [
        (MODEL, []), (SUITE, ["memory::sequences"]), (SUITE, ["memory::golden"]), (SUITE, ["memory::"]),
        ("tests/claims.rs", [])]),
    "types": (r"src/", [
        (LIB, []), (MODEL, []), (SUITE, ["memory::golden"]), ("tests/sqlite/main.rs", []),
        (SUITE, ["memory::", "--skip", "histories"]), ("tests/jetstream/main.rs", [])]),
}
# These tests run on a clock of their own, so they do not fail because other programs keep the machine busy.
STEADY = {LIB, MODEL, SIMULATE}
# A test below this many seconds is quick. The quick tests of every stage run before the others.
QUICK = 1.5
# The binaries in ONE_NAME take the name of one test only. Up to ALONE quick tests run one by one, then the whole stage.
ONE_NAME, ALONE = {SUITE}, 24


def area(path):
    return next(name for name, (where, _) in AREAS.items() if re.match(where, path))


def refuse(what):
    sys.exit(f"error: {what}")


def listed():
    """The mutants of `cargo mutants`, numbered from 1."""
    command = ["cargo", "mutants", "--list", "--json", "--workspace"]
    command += [arg for glob in EXAMINED for arg in ("-f", glob)]
    command += [arg for glob in INSTRUMENTS for arg in ("-e", glob)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode != 0:
        refuse(f"cargo mutants cannot list: {run.stderr.strip()} (cargo install cargo-mutants)")
    mutants = json.loads(run.stdout)
    for number, mutant in enumerate(mutants, 1):
        mutant["id"] = number
    return mutants


class File:
    """A source file with a switch for each mutant that compiles."""

    def __init__(self, parser, path, mutants):
        self.path, self.mutants, self.parser = path, mutants, parser
        self.text = (ROOT / path).read_bytes()
        starts = [0] + [at + 1 for at, byte in enumerate(self.text) if byte == 10]
        offset = lambda p: starts[p["line"] - 1] + len(
            self.text[starts[p["line"] - 1]:].decode()[: p["column"] - 1].encode())
        self.spans = {m["id"]: (offset(m["span"]["start"]), offset(m["span"]["end"])) for m in mutants}
        self.prefix = "crate" if path.startswith("src/") else "membership"

    def write(self, dropped):
        """Writes the file without the mutants in `dropped`; returns the ids of the mutants that have a place in it."""
        self.placed = set()
        self.left = [m for m in self.mutants if m["id"] not in dropped]
        text = self.go(self.parser.parse(self.text).root_node)
        (SOURCE / self.path).write_text(text)
        return self.placed

    def of(self, genre, holds):
        return [m for m in self.left if m["genre"] == genre and holds(*self.spans[m["id"]])]

    def at(self, genre, node):
        return self.of(genre, lambda start, end: (start, end) == (node.start_byte, node.end_byte))

    def source(self, node):
        return self.text[node.start_byte : node.end_byte].decode()

    def marked(self, mutant, text):
        # `culprits` uses these comments to find the mutant that a compiler error is about.
        self.placed.add(mutant["id"])
        return f"/*<{mutant['id']}*/{text}/*{mutant['id']}>*/"

    def switch(self, mutant):
        return f"{self.prefix}::mutant({mutant['id']})"

    def either(self, mutant, mutated, text):
        return self.marked(mutant, f"(if {self.switch(mutant)} {{ {mutated} }} else {{ {text} }})")

    def inner(self, node, instead=lambda child: None):
        text, at = "", node.start_byte
        for child in node.children:
            new = instead(child)
            text += self.text[at : child.start_byte].decode() + (self.go(child) if new is None else new)
            at = child.end_byte
        return text + self.text[at : node.end_byte].decode()

    def go(self, node):
        kind = node.type
        if kind in ("macro_invocation", "macro_definition", "token_tree", "line_comment", "block_comment"):
            return self.source(node)
        if kind in ("binary_expression", "compound_assignment_expr"):
            operator = node.child_by_field_name("operator")
            left, right = (self.source(node.child_by_field_name(side)) for side in ("left", "right"))
            text = self.inner(node)
            for mutant in self.at("BinaryOperator", operator):
                # Only one mutant is active at a time, so its operands are the original ones.
                text = self.either(mutant, f"{left} {mutant['replacement']} {right}", text)
            return text
        if kind == "unary_expression":
            text = self.inner(node)
            for mutant in self.at("UnaryOperator", node.children[0]):
                text = self.either(mutant, mutant["replacement"] + self.source(node)[1:], text)
            return text
        if kind == "match_arm":
            return self.arm(node)
        if kind == "block" and node.parent is not None and node.parent.type == "function_item":
            first = next((c for c in node.named_children if not c.type.endswith("comment")), None)
            bodies = self.of("FnValue", lambda start, end: first is not None
                             and start == first.start_byte and end < node.end_byte)
            exits = "".join(self.marked(m, f" if {self.switch(m)} {{ return {m['replacement']}; }} ") for m in bodies)
            return "{" + exits + self.inner(node)[1:]
        return self.inner(node)

    def arm(self, node):
        pattern = node.child_by_field_name("pattern")
        guard = pattern.child_by_field_name("condition")
        without = self.of("MatchArm", lambda start, end: start == node.start_byte and abs(end - node.end_byte) <= 1)
        guards = self.at("MatchArmGuard", guard) if guard is not None else []
        if not without and not guards:
            return self.inner(node)
        there = [self.marked(m, f"!{self.switch(m)}") for m in without]
        if guard is None:
            changed = self.go(pattern) + " if " + " && ".join(there)
        else:
            condition = self.go(guard)
            for mutant in guards:
                condition = self.either(mutant, mutant["replacement"], condition)
            before = self.text[pattern.start_byte : guard.start_byte].decode()
            changed = before + " && ".join([*there, f"({condition})"])
        return self.inner(node, lambda child: changed if child == pattern else None)


def culprits(message, files):
    """Returns the mutants that a compiler error is about."""
    found, beside = set(), set()
    for span in message["spans"]:
        if span["file_name"] not in files:
            continue
        text = (SOURCE / span["file_name"]).read_bytes()
        marks = [(m.start(), text.find(b"/*%s>*/" % m.group(1), m.end()), int(m.group(1)))
                 for m in re.finditer(rb"/\*<(\d+)\*/", text)]
        start, end = span["byte_start"], span["byte_end"]
        around = [mark for mark in marks if mark[0] <= start and end <= mark[1]]
        if around:
            found.add(max(around)[2])
        found |= {number for begin, _, number in marks if start <= begin <= end}
        # The error is outside of the mutant if a match is not exhaustive any more (E0004), or if an early return fixes
        # the type of a body.
        if (message.get("code") or {}).get("code") == "E0004":
            beside |= {number for begin, _, number in marks if start <= begin <= end + 2500}
        else:
            before = [(finish, number) for _, finish, number in marks if finish <= start]
            beside |= {max(before)[1]} if before else set()
    return found or beside


def build(_):
    try:
        import tree_sitter_rust
        from tree_sitter import Language, Parser
    except ImportError as missing:
        refuse(f"{missing}; pip install tree-sitter tree-sitter-rust")
    parser = Parser(Language(tree_sitter_rust.language()))
    status = ["git", "status", "--porcelain", "--untracked-files=no"]
    if subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=True).stdout:
        refuse("what is not committed would not be hunted; git commit")
    mutants = listed()
    shutil.rmtree(SOURCE, ignore_errors=True)
    RESULTS.unlink(missing_ok=True)
    REACHED.unlink(missing_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "clone", "--quiet", ROOT, SOURCE], check=True)
    files = {}
    for mutant in mutants:
        files.setdefault(mutant["file"], []).append(mutant)
    files = {path: File(parser, path, of) for path, of in files.items()}
    environment = dict(os.environ, CARGO_TARGET_DIR=str(WORK / "build"), RUSTFLAGS="--cap-lints allow",
                       CARGO_PROFILE_DEV_DEBUG="0", CARGO_PROFILE_DEV_OPT_LEVEL="1")
    dropped = set()
    while True:
        placed = set().union(*(file.write(dropped) for file in files.values()))
        lib = SOURCE / "src" / "lib.rs"
        lib.write_text((ROOT / "src" / "lib.rs").read_text() + SWITCH)
        command = ["cargo", "check", "--workspace", "--message-format", "json"]
        run = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True)
        if run.returncode == 0:
            break
        messages = [json.loads(line) for line in run.stdout.splitlines()]
        errors = [m["message"] for m in messages if m.get("message", {}).get("level") == "error"]
        bad = set().union(*(culprits(error, files) for error in errors)) - dropped
        if not bad:
            refuse("the switches do not compile:\n" + "\n".join(error["rendered"] for error in errors))
        print(f"{len(bad)} do not compile", flush=True)
        dropped |= bad
    kept = [m for m in mutants if m["id"] in placed]
    KEPT.write_text(json.dumps([{k: m[k] for k in ("id", "name", "file")} for m in kept]))
    left = len(mutants) - len(kept) - len(dropped)
    print(f"{len(kept)} of {len(mutants)} mutants; {len(dropped)} do not compile, {left} have no place", flush=True)
    command = ["cargo", "test", "--workspace", "--no-run"]
    run = subprocess.run(command, cwd=SOURCE, env=environment, stderr=subprocess.PIPE, text=True)
    if run.returncode != 0:
        refuse(run.stderr)
    tests = {}
    for name, path in re.findall(r"Executable (?:unittests )?(\S+) \((\S+)\)", run.stderr):
        if name == "src/lib.rs":
            name = MODEL if "membership_conformance" in path else LIB if "membership_lab" not in path else None
        if name is None:
            continue
        tests[name] = str(SOURCE / path)
    TESTS.write_text(json.dumps(tests))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def in_parallel(work, items, jobs):
    """Does `work` on each item, `jobs` of them at once. The first error ends the work."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        done = [pool.submit(work, item) for item in items]
        try:
            for one in concurrent.futures.as_completed(done):
                one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def batches(tests):
    """Splits the tests into batches of one, two, four, ... tests."""
    many = 1
    while tests:
        yield tests[:many]
        tests, many = tests[many:], 2 * many


class Tests:
    """Runs the tests: on a mutant, or without a mutant to record which switches they reach."""

    def __init__(self, steady):
        self.steady = steady
        if not TESTS.exists():
            refuse("nothing was built; tools/mutants.py build")
        self.binaries = json.loads(TESTS.read_text())
        self.known = {(known["binary"], known["test"]): known for known in lines(REACHED)}
        self.listed = {}
        self.kills = collections.Counter()
        self.lock = threading.Lock()

    def start(self, name, arguments, out, **environment):
        inside = [p for p in ("conformance", "lab") if (SOURCE / p / name).exists()]
        inside = ["conformance"] if name == MODEL else inside
        environment = dict(os.environ, MEMBERSHIP_SEED="7", **environment)
        return subprocess.Popen([self.binaries[name], *arguments], env=environment, stdout=out,
                                cwd=SOURCE / inside[0] if inside else SOURCE,
                                stderr=subprocess.STDOUT, start_new_session=True)

    def log(self):
        return WORK / f"log-{threading.get_ident()}"

    def run(self, name, arguments, patience, **environment):
        """Returns how a run failed, or `None` if it passed."""
        log = self.log()
        with log.open("w") as out:
            test = self.start(name, arguments, out, **environment)
        until, caught = time.time() + patience, None
        while caught is None:
            code = test.poll()
            failed = re.search(r"^test (\S+).* FAILED", log.read_text(errors="replace"), re.M)
            if failed:
                caught = failed.group(1)
            elif code is not None:
                if code != 0:
                    caught = f"{name} ended with {code}"
                break
            elif time.time() > until:
                caught = f"{name} did not end in {patience:.0f} s"
            else:
                time.sleep(0.02)
        # This also kills the servers and children of the test.
        try:
            os.killpg(test.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        test.wait()
        return caught

    def stages(self, area):
        steady = lambda stage: stage[0] in STEADY
        return list(itertools.takewhile(steady, AREAS[area][1])) if self.steady else AREAS[area][1]

    def list(self, stage):
        name, arguments = stage[0], tuple(stage[1])
        if (name, arguments) not in self.listed:
            listing = self.start(name, [*arguments, "--list"], subprocess.PIPE)
            found = re.findall(r"^(.+): test$", listing.communicate()[0].decode(), re.M)
            self.listed[name, arguments] = found or refuse(f"{name} {' '.join(arguments)} lists no test")
        return self.listed[name, arguments]

    def look(self, stages, jobs):
        """Runs each test alone whose switches are not recorded yet."""
        wanted = dict.fromkeys((stage[0], test) for stage in stages for test in self.list(stage))
        wanted = [test for test in wanted if test not in self.known]

        def one(test):
            reached = WORK / f"reached-{threading.get_ident()}"
            reached.unlink(missing_ok=True)
            began = time.time()
            if by := self.run(test[0], ["--exact", test[1]], 600, MUTANTS_REACHED=str(reached)):
                shutil.copy(self.log(), WORK / "failed.log")
                refuse(f"without a mutant, {by} fails: {WORK / 'failed.log'}")
            seconds = round(time.time() - began, 2)
            ids = sorted({int(line) for line in reached.read_text().split()}) if reached.exists() else []
            known = {"binary": test[0], "test": test[1], "seconds": seconds, "reached": ids}
            with self.lock:
                self.known[test] = known
                with REACHED.open("a") as out:
                    out.write(json.dumps(known) + "\n")
                print(f"{len(self.known):>5}  {test[1]} {seconds} s, gets to {len(ids)}", flush=True)

        in_parallel(one, wanted, jobs)

    def caught(self, mutant):
        """Runs the tests that reach the mutant, likely and quick ones first. Returns what caught it, or `None`."""
        return next(filter(None, (self.fails(mutant, *run) for run in self.runs(mutant))), None)

    def runs(self, mutant):
        """Yields the runs on a mutant, one after the other: a binary, its arguments, and the tests in the run."""
        stages = self.stages(area(mutant["file"]))
        of = {id(stage): [self.known[stage[0], test] for test in self.list(stage)] for stage in stages}
        for quick in (True, False):
            for stage in stages:
                name, arguments = stage
                tests = [test for test in of[id(stage)] if mutant["id"] in test["reached"]]
                tests.sort(key=lambda test: (-self.kills[mutant["file"], test["test"]], test["seconds"]))
                some = [test for test in tests if (test["seconds"] < QUICK) == quick]
                if name not in ONE_NAME:
                    for batch in batches(some):
                        yield name, ["--exact", *(test["test"] for test in batch)], batch
                elif quick:
                    for test in some[:ALONE]:
                        yield name, ["--exact", test["test"]], [test]
                elif tests:
                    yield name, arguments, of[id(stage)]

    def fails(self, mutant, name, arguments, tests):
        patience = 20 + 4 * sum(test["seconds"] for test in tests)
        by = self.run(name, arguments, patience, MUTANT=str(mutant["id"]))
        if by:
            with self.lock:
                self.kills[mutant["file"], by] += 1
        return by


def explained(name):
    """Whether the list of excluded mutants has this one. The list may have changed since the build."""
    entries = tomllib.loads((ROOT / ".cargo" / "mutants.toml").read_text())["exclude_re"]
    return any(re.search(entry, name) for entry in entries)


def hunt(args):
    tests, lock = Tests(args.steady), threading.Lock()
    tests.look([stage for name in args.areas for stage in tests.stages(name)], args.jobs)
    mutants = [m for m in json.loads(KEPT.read_text())
               if area(m["file"]) in args.areas and re.search(args.name, m["name"]) and not explained(m["name"])]
    if not mutants:
        refuse(f"no mutant of {', '.join(args.areas)} has a name that matches {args.name}")
    done = {result["id"]: result["by"] for result in lines(RESULTS)}

    def one(mutant):
        by = tests.caught(mutant)
        with lock:
            done[mutant["id"]] = by
            if by or not args.steady:
                with RESULTS.open("a") as out:
                    out.write(json.dumps({"id": mutant["id"], "name": mutant["name"], "by": by}) + "\n")
            print(f"{len(done):>5}  {mutant['name']}: {by or '✗ survived'}", flush=True)

    in_parallel(one, [mutant for mutant in mutants if mutant["id"] not in done], args.jobs)
    survivors = [m["name"] for m in mutants if done[m["id"]] is None]
    print(f"\n{len(mutants) - len(survivors)} of {len(mutants)} caught")
    for name in survivors:
        print(f"✗ {name}")
    sys.exit(bool(survivors))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("build", help="all mutants in one build").set_defaults(run=build)
    hunts = commands.add_parser("hunt", help="run the tests on each mutant")
    hunts.add_argument("areas", nargs="*", default=list(AREAS), metavar="AREA", help=", ".join(AREAS))
    hunts.add_argument("--name", default="", metavar="REGEX", help="only those whose names match, files included")
    hunts.add_argument("--steady", action="store_true",
                       help="only the first tests, as far as a busy machine cannot fail them; the next hunt goes on "
                            "with who survives")
    hunts.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="how many at once [one a core]")
    hunts.set_defaults(run=hunt)
    args = parser.parse_args()
    for name in getattr(args, "areas", []):
        if name not in AREAS:
            refuse(f"{name} is no area; there are {', '.join(AREAS)}")
    args.run(args)


if __name__ == "__main__":
    main()
