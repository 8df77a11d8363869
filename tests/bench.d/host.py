"""Processes of the bench: started, pinned, measured, and gone at the end.

Invariants: every wait has a deadline; only processes that were started here are signalled, by their id; everything
listens on 127.0.0.1 and lives in one folder that is removed at the end.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, CLIENT_CPU = CPUS[0], CPUS[-1]
# Above all ordinary work, below what the kernel does for itself.
REALTIME = 10


class Broken(Exception):
    """The bench itself cannot go on: neither a figure nor a peer that is missing."""


def tell(text):
    """The story goes to stderr; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Done:
    """A process that has ended."""

    code: int
    out: str
    err: str
    cpu_s: float
    wall_s: float


class Host:
    """Starts processes; a context manager that ends those that are left."""

    def __init__(self, nice):
        self.nice = nice if os.geteuid() == 0 else 0
        # Short: labs keep their sockets below it. Readable: nginx drops its privileges.
        self.folder = Path(tempfile.mkdtemp(prefix="squall-bench-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.env = dict(os.environ, XDG_RUNTIME_DIR=str(self.folder), NO_COLOR="1")
        self.living = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.living):
            with contextlib.suppress(Exception):
                self.stop(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, argv, cpu=None, realtime=False, **options):
        """Starts a process in a session of its own, on one CPU if asked; it ends with the bench."""

        def prepare():
            if cpu is not None:
                os.sched_setaffinity(0, {cpu})
            if realtime:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REALTIME))
            elif self.nice:
                os.setpriority(os.PRIO_PROCESS, 0, self.nice)
                # Where the kernel shares out by session, only this counts against other sessions.
                with contextlib.suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as group:
                    group.write(str(self.nice))

        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.DEVNULL)
        options.setdefault("stderr", subprocess.DEVNULL)
        options.setdefault("env", self.env)
        try:
            process = subprocess.Popen([str(a) for a in argv], preexec_fn=prepare, start_new_session=True, **options)
        except OSError as error:
            raise Broken(f"{argv[0]} cannot be started: {error}") from error
        self.living.append(process)
        return process

    def stop(self, process, within=5.0):
        """Ends a process that was started here."""
        if process in self.living:
            self.living.remove(process)
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(within)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(within)

    def run(self, argv, cpu=None, deadline=60.0, **options):
        """Runs a process to its end; its CPU time is that of it and of all children that it has waited for."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            began = time.perf_counter()
            process = self.start(argv, cpu, stdout=out, stderr=err, **options)
            usage = reap(process, began + deadline)
            wall = time.perf_counter() - began
            self.living.remove(process)
            if usage is None:
                process.kill()
                process.wait(5)
                raise Broken(f"{' '.join(map(str, argv))} did not end within {deadline:.0f} s")
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
            return Done(process.returncode, *texts, usage.ru_utime + usage.ru_stime, wall)

    def good(self, argv, cpu=None, deadline=60.0, **options):
        """As `run`; anything but exit code 0 breaks the bench."""
        done = self.run(argv, cpu, deadline, **options)
        if done.code != 0:
            raise Broken(f"{' '.join(map(str, argv))} ended with {done.code}:\n{done.err[-2000:]}{done.out[-2000:]}")
        return done


def reap(process, until):
    """Waits for a process and returns what it used; none if it lives on. Fine-grained at first: some last 3 ms."""
    pause = 0.0002
    while time.perf_counter() < until:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage
        time.sleep(pause)
        pause = min(pause * 1.05, 0.01)
    return None


def free_port():
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_port(port, process, within=10.0):
    """Waits until somebody listens there."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise Broken(f"{process.args[0]} does not listen on port {port}")


def load_average():
    """How busy the machine is with all that goes on."""
    return os.getloadavg()[0]


def others(window=0.5):
    """The share of the cores, 0 to 1, that others use now: to be asked while nothing of the bench computes."""

    def ticks():
        with open("/proc/stat", encoding="ascii") as stat:
            fields = [int(field) for field in stat.readline().split()[1:9]]
        # Idle and waiting for a disk.
        return sum(fields), fields[3] + fields[4]

    before = ticks()
    time.sleep(window)
    after = ticks()
    whole = after[0] - before[0]
    return 1 - (after[1] - before[1]) / whole if whole else 0.0


def may_realtime():
    """Whether processes may be given real-time priority."""
    return os.geteuid() == 0
