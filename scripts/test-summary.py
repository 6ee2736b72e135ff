#!/usr/bin/env python3
"""Runs a `cargo test` command, shows its output as it comes, and adds it all up.

    test-summary.py [--out FILE] [--timeout SECONDS] -- COMMAND...
    test-summary.py --add FILE...

The first form runs COMMAND and ends with a list of what failed and what was skipped, and with one
plain line `N passed, N failed, N skipped`. The second form adds up what earlier runs wrote with
--out, and repeats what failed above the same closing line.

A test that cannot find its peer passes for libtest. It says so by appending one line to the file
named by SIGNET_SKIP_LOG (or by printing it):

    SIGNET-SKIP <test name>: <reason>           the peer is missing here; an error when
                                                SIGNET_PEERS=required
    SIGNET-SKIP-EXPECTED <test name>: <reason>  the peer is here and cannot know this; never an error
    SIGNET-ELSEWHERE <test name>: <reason>      another run has it (make test-kube); not counted here

Exit code 0 only when tests ran, none failed, COMMAND succeeded and no required peer was missing.
With this as the parent nothing that a test started outlives the run, however it ends.
"""

import argparse
import ctypes
import json
import os
import re
import select
import signal
import subprocess
import sys
import time

RESULT = re.compile(
    r"test result: (?:ok|FAILED)\. (\d+) passed; (\d+) failed; (\d+) ignored; \d+ measured; \d+ filtered out"
)
TARGET = re.compile(r"^\s+(?:Running (?:unittests |benches )?(\S+) \((\S*deps/\S+)\)|Doc-tests (\S+))\s*$")
SLOW = re.compile(r"^test (.+?) has been running for over \d+ seconds")
DONE = re.compile(r"^test (.+?)(?: - should panic)? \.\.\. ")
FAILED = re.compile(r"^test (.+?)(?: - should panic)? \.\.\. .*FAILED\b")
IGNORED = re.compile(r"^test (.+?) \.\.\. .*?ignored(?:, (.*))?$")
SKIP = re.compile(r"^\s*SIGNET-(SKIP|SKIP-EXPECTED|ELSEWHERE) ([^:\s](?:[^:]|::)*?): (.*)$")
SECTION = re.compile(r"^---- (.+?)(?: - should panic)? stdout ----$")
PANIC = re.compile(r"^thread '.*' (?:\(\d+\) )?panicked at (.+):$")
PANIC_ENDS = re.compile(r"^(?:note: |stack backtrace:|---- |$)")
STYLE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

PR_SET_CHILD_SUBREAPER = 36

# Lines of a panic's message that the closing list repeats.
MESSAGE_LINES = 12


class Tally:
    """What the output said so far."""

    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.ignored = []
        self.failures = []
        # What each failed test died of: lines by its name.
        self.panics = {}
        self.section = None
        self.panic = None
        self.skips = {}
        self.elsewhere = set()
        self.slow = set()
        self.target = None
        self.results = 0

    def read(self, line):
        line = STYLE.sub("", line).rstrip("\r\n")
        self.read_panic(line)
        if found := SLOW.match(line):
            self.slow.add(found[1])
        elif found := DONE.match(line):
            self.slow.discard(found[1])
        if found := TARGET.match(line):
            self.close_target("ended without a result (crashed?)")
            # The file's stem tells the binary: target/debug/deps/kube-0123abcd → kube.
            binary = found[2] and os.path.basename(found[2]).rsplit("-", 1)[0]
            self.target = binary or f"doc-tests of {found[3]}"
        elif found := RESULT.search(line):
            self.passed += int(found[1])
            self.failed += int(found[2])
            self.results += 1
            self.target = self.section = self.panic = None
        elif found := FAILED.match(line):
            self.failures.append((f"{self.target}: {found[1]}", found[1]))
        elif found := IGNORED.match(line):
            self.ignored.append((f"{self.target}: {found[1]}", found[2] or "ignored in the source"))
        else:
            self.read_skip(line)

    def read_panic(self, line):
        """libtest repeats what a failed test printed, in a section of its own."""
        if found := SECTION.match(line):
            self.section, self.panic = found[1], None
        elif (found := PANIC.match(line)) and self.section:
            self.panic = self.panics.setdefault(self.section, [])
            self.panic.append(found[1])
        elif self.panic is not None:
            if PANIC_ENDS.match(line) or len(self.panic) > MESSAGE_LINES:
                self.panic = None
            else:
                self.panic.append(line)

    def read_skip(self, line):
        if found := SKIP.match(line):
            # One test counts once, whatever it says and however often; missing outweighs expected.
            kind, name, reason = found[1], found[2].strip(), found[3].strip()
            expected = kind == "SKIP-EXPECTED"
            if kind == "ELSEWHERE":
                self.elsewhere.add(name)
            elif name not in self.skips or (self.skips[name][0] and not expected):
                self.skips[name] = (expected, reason)

    def close_target(self, why):
        """A test binary that ends without a result has crashed, or was killed."""
        if self.target is not None:
            self.failed += 1
            slow = f"; slow until then: {', '.join(sorted(self.slow))}" if self.slow else ""
            self.failures.append((f"{self.target}: {why}{slow}", None))
            self.target = None
        self.slow.clear()

    def told(self):
        """The lines that say what failed, and of what."""
        for failure, test in self.failures:
            yield f"FAILED: {failure}"
            yield from (f"    {line}" for line in self.panics.get(test, []))

    def counts(self):
        # libtest counted the skipped ones as passed.
        not_run = self.skips.keys() | self.elsewhere
        return {
            "passed": max(0, self.passed - len(not_run)),
            "failed": self.failed,
            "skipped": len(self.skips) + len(self.ignored),
        }


def closing_line(counts):
    return f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"


def descendants():
    """Every process below this one, by /proc; as a subreaper we also inherit the orphans."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as stat:
                    text = stat.read()
            except OSError:
                continue
            # The command name in parentheses may hold anything, a closing parenthesis too.
            name, fields = text[: text.rindex(b")")], text[text.rindex(b")") + 2 :].split()
            if fields[0] != b"Z":
                label = name[name.index(b"(") + 1 :].decode(errors="replace")
                children.setdefault(int(fields[1]), []).append((int(entry), label))
    found, parents = [], [os.getpid()]
    while parents:
        below = children.get(parents.pop(), [])
        found += below
        parents += [pid for pid, _ in below]
    return found


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def sweep(grace):
    """Ends every process below this one; returns the names of those that were there."""
    names = {}
    for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5)):
        deadline = time.monotonic() + patience
        told = set()
        while time.monotonic() < deadline:
            reap()
            alive = descendants()
            if not alive:
                return sorted(names.values())
            for pid, name in alive:
                names[pid] = name
                # An orphan shows up below us only once its parent has gone, so look again.
                if pid not in told:
                    told.add(pid)
                    try:
                        os.kill(pid, signum)
                    except OSError:
                        pass
            time.sleep(0.05)
    return sorted(names.values())


def run(command, timeout, tally):
    """Runs command and feeds its lines to tally. Returns (what went wrong or None, exit code)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    stop = []
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, _frame: stop.append(number))

    try:
        # One pipe for both streams keeps cargo's headings and the tests' lines in order.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        return f"cannot run {command[0]}: {error.strerror}", 1

    pipe = child.stdout.fileno()
    os.set_blocking(pipe, False)
    deadline = time.monotonic() + timeout
    rest, open_pipe, trouble, code = b"", True, None, 0
    while open_pipe:
        ready, _, _ = select.select([pipe], [], [], 0.2)
        if ready:
            data = os.read(pipe, 65536)
            open_pipe = bool(data)
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                tally.read(line.decode(errors="replace"))
        elif child.poll() is not None:
            # A process that a test left behind may hold the pipe open for ever.
            break
        if stop:
            trouble, code = f"interrupted by {signal.Signals(stop[0]).name}", 128 + stop[0]
            break
        if time.monotonic() > deadline:
            trouble, code = f"not finished after {timeout} s", 124
            break
    tally.read(rest.decode(errors="replace"))

    if trouble is None:
        status = child.wait()
        if status != 0:
            trouble, code = f"{command[0]} ended with exit code {status}", 1
        left = sweep(3)
        if left:
            print(f"\nnote: tests left {len(left)} processes running, ended now: {', '.join(left)}")
    else:
        sweep(3)
        tally.close_target("was running when the run was ended")
    tally.close_target("ended without a result (crashed?)")
    return trouble, code


def report(tally, skips_are_errors, trouble):
    """Prints what is to be said above the closing line; returns whether all is well."""
    missing = [name for name, (expected, _) in tally.skips.items() if not expected]
    print()
    for name, (expected, reason) in sorted(tally.skips.items()):
        print(f"skipped{' (expected)' if expected else ''}: {name}: {reason}")
    for name, reason in sorted(tally.ignored):
        print(f"skipped (ignored): {name}: {reason}")
    for line in tally.told():
        print(line)
    if trouble:
        print(f"FAILED: {trouble}")
    if not tally.results:
        print("FAILED: no test ran")
    elif not tally.passed and not tally.failed:
        print("FAILED: no test was executed")
    if missing and skips_are_errors:
        print(f"FAILED: SIGNET_PEERS=required, and {len(missing)} tests found no peer")
    elif missing:
        print(f"NOTE: {len(missing)} tests were SKIPPED for want of a peer (see above)")
    executed = tally.passed + tally.failed > 0
    return executed and not (tally.failed or trouble or (missing and skips_are_errors))


def add(files):
    total = {"passed": 0, "failed": 0, "skipped": 0}
    complete = True
    for path in files:
        try:
            with open(path, encoding="utf-8") as file:
                counts = json.load(file)
            total = {key: total[key] + counts[key] for key in total}
            for line in counts["told"]:
                print(line)
            complete &= counts["ok"]
        except (OSError, ValueError, KeyError):
            print(f"FAILED: no test counts in {path}")
            complete = False
    print(closing_line(total))
    return 0 if complete and total["failed"] == 0 and total["passed"] > 0 else 1


def main():
    parser = argparse.ArgumentParser(description="runs cargo test and adds up its results")
    parser.add_argument("--out", metavar="FILE", help="write the counts there, as JSON")
    parser.add_argument("--timeout", metavar="SECONDS", type=int, default=2400)
    parser.add_argument("--add", action="store_true", help="add up the counts of earlier runs")
    parser.add_argument("words", nargs="+", metavar="COMMAND or FILE")
    options = parser.parse_args()
    if options.add:
        return add(options.words)

    if options.out and os.path.exists(options.out):
        os.remove(options.out)
    log = os.environ.get("SIGNET_SKIP_LOG")
    if log:
        os.makedirs(os.path.dirname(log) or ".", exist_ok=True)
        open(log, "w", encoding="utf-8").close()

    tally = Tally()
    trouble, code = run(options.words, options.timeout, tally)
    if log:
        with open(log, encoding="utf-8", errors="replace") as file:
            for line in file:
                tally.read_skip(line.rstrip("\n"))

    good = report(tally, os.environ.get("SIGNET_PEERS") == "required", trouble)
    counts = tally.counts()
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump({**counts, "ok": good, "told": list(tally.told())}, file)
    print(closing_line(counts), flush=True)
    return 0 if good else (code or 1)


if __name__ == "__main__":
    sys.exit(main())
