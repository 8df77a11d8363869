"""The systems that stand beside squall: found, installed if this is root, started on loopback."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from host import CLIENT_CPU, SERVER_CPU, Broken, free_port, tell, wait_port

PACKAGES = {"wrk": "wrk", "nginx": "nginx", "haproxy": "haproxy", "hey": "hey", "h2load": "nghttp2-client", "nghttpd": "nghttp2-server"}
OHA = "1.16.0"
TOXIPROXY = "github.com/Shopify/toxiproxy/v2/cmd/server@latest"
INSTALL_DEADLINE = 300
BUILD_DEADLINE = 1200


class Missing(Exception):
    """A peer that is needed is not there."""


def find(name):
    """The path of a program, also where Debian keeps daemons."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/go/bin")


def versions():
    """What each peer says that it is; none if it is missing."""
    ask = {
        "wrk": (["wrk", "-v"], 0),
        "nginx": (["nginx", "-v"], 0),
        "haproxy": (["haproxy", "-v"], 0),
        "h2load": (["h2load", "--version"], 0),
    }
    found = {}
    for name, (argv, line) in ask.items():
        path = find(name)
        found[name] = None
        if path:
            done = subprocess.run([path, *argv[1:]], capture_output=True, text=True, timeout=10, check=False)
            lines = (done.stdout + done.stderr).splitlines() or ["?"]
            found[name] = lines[line].split("Copyright")[0].strip()
    return found


def install():
    """Installs what is missing. Never fails: a peer that stays missing is named in the result."""
    missing = [package for name, package in PACKAGES.items() if not find(name)]
    if not missing:
        return
    if os.geteuid() != 0 or not find("apt-get"):
        tell(f"bench: missing: {', '.join(missing)} (as root the bench would install them)")
        return
    tell(f"bench: installing {', '.join(missing)}")
    # RUNLEVEL: the packages' own services are not wanted.
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
    for argv in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
        try:
            done = subprocess.run(
                ["apt-get", *argv], env=env, capture_output=True, text=True, timeout=INSTALL_DEADLINE, check=False
            )
        except subprocess.TimeoutExpired:
            tell(f"bench: apt-get {argv[0]} did not end within {INSTALL_DEADLINE} s")
            return
        if done.returncode != 0:
            tell(f"bench: apt-get {argv[0]} failed: {done.stderr.strip()[-300:]}")


def cached():
    """Where peers are kept that Debian has not."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "squall-bench"


def oha(build):
    """The path of oha, built into the user's cache if it is not there and may be, which takes minutes; none if it cannot
    be had."""
    folder = cached() / "oha"
    program = folder / "bin" / "oha"
    if program.exists() or not build:
        return find("oha") or (program if program.exists() else None)
    tell("bench: building oha")
    argv = ["cargo", "install", "oha", "--version", OHA, "--locked", "--quiet", "--root", folder]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_DEADLINE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        tell(f"bench: oha could not be built: {error}")
        return None
    if done.returncode != 0:
        tell(f"bench: oha could not be built: {done.stderr.strip()[-300:]}")
    return program if program.exists() else None


def oha_version(program):
    """What it says that it is."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.strip()


def toxiproxy():
    """The path of Toxiproxy's server, built into the user's cache if it is not there; none if it cannot be had."""
    cache = cached()
    server = cache / "server"
    if server.exists():
        return server
    go = find("go")
    if not go:
        return None
    tell("bench: building Toxiproxy")
    cache.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ, GOBIN=str(cache), GOFLAGS="-p=2")
    try:
        done = subprocess.run(
            [go, "install", TOXIPROXY], env=env, capture_output=True, text=True, timeout=INSTALL_DEADLINE, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        tell(f"bench: Toxiproxy could not be built: {done.stderr.strip()[-300:]}")
    return server if server.exists() else None


def toxiproxy_version(server):
    """From the binary itself: its own flag does not know it."""
    go = find("go")
    if not go:
        return "toxiproxy"
    done = subprocess.run([go, "version", "-m", server], capture_output=True, text=True, timeout=10, check=False)
    for line in done.stdout.splitlines():
        words = line.split()
        if words[:1] == ["mod"]:
            return f"toxiproxy {words[2]}"
    return "toxiproxy"


NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 3600;
  client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
  uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /small {{ default_type text/plain; return 200 "hello world\\n"; }}
    location / {{ root {folder}/www; }}
  }}
}}
"""


class Nginx:
    """A server on one CPU: `/small` has 12 bytes, `/large` 64 KiB."""

    def __init__(self, host):
        path = find("nginx")
        if not path:
            raise Missing("nginx")
        self.port = free_port()
        www = host.folder / "www"
        www.mkdir(exist_ok=True)
        (www / "large").write_bytes(bytes(65536))
        config = host.folder / "nginx.conf"
        config.write_text(NGINX.format(folder=host.folder, port=self.port))
        self.process = host.start([path, "-e", host.folder / "nginx.err", "-c", config], cpu=SERVER_CPU)
        wait_port(self.port, self.process)
        self.small = f"http://127.0.0.1:{self.port}/small"


HAPROXY = """
global
  maxconn 4096
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen hop
  bind 127.0.0.1:{port}
  server upstream 127.0.0.1:{upstream}
"""


def haproxy_hop(host, upstream):
    """HAProxy in TCP mode with its defaults."""
    path, port = find("haproxy"), free_port()
    if not path:
        raise Missing("haproxy")
    config = host.folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, upstream=upstream))
    process = host.start([path, "-db", "-f", config])
    wait_port(port, process)
    return process, port


def toxiproxy_hop(host, server, upstream):
    """Toxiproxy with one proxy and no toxic."""
    api, port = free_port(), free_port()
    env = dict(host.env, LOG_LEVEL="error")
    process = host.start([server, "-host", "127.0.0.1", "-port", api], env=env)
    wait_port(api, process)
    call(api, "POST", "/proxies", {"name": "hop", "listen": f"127.0.0.1:{port}", "upstream": f"127.0.0.1:{upstream}"})
    wait_port(port, process)
    return process, port, api


def call(api, method, path, body=None):
    """One call of Toxiproxy's API."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{api}{path}", method=method, data=None if body is None else json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read() or b"null")


def squall_hop(host, squall, upstream):
    """Squall's own relay, as a run starts it."""
    port = free_port()
    route = {"name": "hop", "listen": f"127.0.0.1:{port}", "upstream": f"127.0.0.1:{upstream}"}
    config = {"control": str(host.folder / "relay.sock"), "routes": [route]}
    process = host.start([squall, "__relay"], stdin=subprocess.PIPE)
    # The relay lives as long as this pipe.
    process.stdin.write(json.dumps(config).encode() + b"\n")
    process.stdin.flush()
    wait_port(port, process)
    return process, port


def wrk(host, url, connections, seconds):
    """One run of wrk on the client's CPU: what it printed, and what it used."""
    path = find("wrk")
    if not path:
        raise Missing("wrk")
    argv = [path, "-t1", f"-c{connections}", f"-d{seconds}", "--latency", url]
    done = host.good(argv, cpu=CLIENT_CPU, deadline=seconds + 20)
    # Timeouts only tell of a busy machine.
    if "Non-2xx" in done.out or re.search(r"Socket errors: connect (?!0, read 0, write 0,)", done.out):
        raise Broken(f"{' '.join(argv)} met errors:\n{done.out}")
    return done


def settle():
    """Lets sockets and caches of the last run come to rest."""
    time.sleep(0.2)
