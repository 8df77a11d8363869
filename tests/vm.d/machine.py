"""A machine of our own: Debian's cloud kernel in QEMU, with what it runs in its initramfs.

Its time is counted in instructions (`-icount`, with `sleep=off`): while it idles, its clock jumps to the next timer. So
nothing in it is late because this host is busy, and seconds of waiting cost nothing. For the same reason an instruction
always takes the same time: by `shift=auto`, a busy host would make a slow machine of it.
"""

import os
import re
import shutil
import subprocess

BOOT_DEADLINE = 1200
DOWNLOAD_DEADLINE = 180
DISK = 256 << 20
# An instruction takes 2 to the power of this, in nanoseconds.
SHIFT = 2
MODULES = """virtio_pci virtio_blk tcp_diag sch_netem sch_ingress cls_bpf cls_u32 act_mirred ifb veth bridge sch_prio sch_tbf sch_htb sch_fq sch_fq_codel
    nf_tables nft_ct nft_reject_inet nft_numgen nft_redir nft_nat nft_chain_nat nft_limit""".split()
TOOLS = ("dash", "ip", "tc", "nft", "nginx")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class Missing(Exception):
    """Something that this lane needs is not here."""


def tool(name):
    """Where a program is."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def fetch(cache):
    """Downloads the package of the newest cloud kernel."""
    asked = ["apt-cache", "depends", "linux-image-cloud-amd64"]
    shown = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    package = next(re.finditer(r"Depends: (linux-image-\S+-cloud-amd64)", shown)).group(1)
    load = ["apt-get", "download", "-q", package]
    subprocess.run(load, cwd=cache, capture_output=True, timeout=DOWNLOAD_DEADLINE, check=True)
    return next(cache.glob("linux-image-*.deb"))


def kernel(cache):
    """Debian's cloud kernel and its modules, unpacked once."""
    done = cache / "done"
    if not done.exists():
        cache.mkdir(parents=True, exist_ok=True)
        try:
            try:
                deb = fetch(cache)
            except (OSError, subprocess.SubprocessError, StopIteration):
                # Perhaps the lists are old; only root can renew them.
                subprocess.run(["apt-get", "update", "-q"], capture_output=True, timeout=DOWNLOAD_DEADLINE, check=True)
                deb = fetch(cache)
            subprocess.run(["dpkg-deb", "-x", deb, cache / "kernel"], timeout=120, check=True)
            deb.unlink()
        except (OSError, subprocess.SubprocessError, StopIteration) as error:
            raise Missing(f"Debian's cloud kernel cannot be fetched: {error}") from error
        done.touch()
    return next((cache / "kernel" / "boot").glob("vmlinuz-*")), next((cache / "kernel" / "lib" / "modules").iterdir())


def ordered(modules):
    """The modules and what they need, in the order of loading, by name."""
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in modules.rglob("*.ko")}
    order = []

    def need(name):
        if name in order or name not in files:
            return
        depends = re.search(rb"depends=([^\0]*)\0", files[name].read_bytes())
        for other in filter(None, (depends.group(1).decode() if depends else "").split(",")):
            need(other.replace("-", "_"))
        order.append(name)

    for name in MODULES:
        need(name)
    return [(name, files[name]) for name in order]


def with_libraries(binary, root, place, strip=False):
    """Copies a program and what it is linked with."""
    if strip and shutil.which("strip"):
        subprocess.run(["strip", "-o", root / place, binary], timeout=60, check=True)
    else:
        shutil.copy(os.path.realpath(binary), root / place)
    shown = subprocess.run(["ldd", binary], capture_output=True, text=True, timeout=30, check=False).stdout
    for library in re.findall(r"(/\S+)", shown):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(library), root / library[1:])


def initramfs(folder, parts, repository, programs, modules):
    """Everything that runs inside, packed. Programs: name to file."""
    root = folder / "root"
    for name in ("bin", "real", "mods", "proc", "sys", "dev", "tmp", "run", "var/log/nginx", "var/lib/nginx", "etc", "parts"):
        (root / name).mkdir(parents=True)
    shutil.copy(tool("busybox"), root / "bin" / "busybox")
    for name in TOOLS:
        with_libraries(tool(name), root, f"real/{name}")
    for name, program in programs.items():
        with_libraries(program, root, f"real/{name}", strip=True)
    found = ordered(modules)
    for name, path in found:
        shutil.copy(path, root / "mods" / f"{name}.ko")
    (root / "mods" / "order").write_text("\n".join(name for name, _ in found))
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/tmp:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    shutil.copytree(repository / "scenarios", root / "scenarios")
    # The tests look for the repository where they were built.
    inside = root / str(repository)[1:]
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.symlink_to("/")
    for script in {"cable", *parts}:
        shutil.copy(repository / "tests" / "vm.d" / script, root / "parts" / script)
    shutil.copy(repository / "tests" / "vm.d" / "init", root / "init")
    (root / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in root.rglob("*"))
    packed = folder / "init.cpio"
    with packed.open("wb") as out:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), stdout=out, timeout=120, check=True)
    shutil.rmtree(root)
    return packed


def disk(folder, part):
    """An empty disk: a file that takes no room until something is written."""
    path = folder / f"{part}.disk"
    with path.open("wb") as file:
        file.truncate(DISK)
    make = [tool("mkfs.ext4"), "-q", "-F", "-m", "0", "-O", "^has_journal", path]
    subprocess.run(make, capture_output=True, timeout=60, check=True)
    return path


def boot(image, packed, script, only, drive):
    """Runs one script in a machine, which may be given words and a disk; returns what it said, whole."""
    command = ["qemu-system-x86_64", "-accel", "tcg", "-icount", f"shift={SHIFT},sleep=off", "-m", "1536", "-smp", "1"]
    command += ["-nographic", "-no-reboot", "-nic", "none", "-kernel", image, "-initrd", packed]
    if drive is not None:
        command += ["-drive", f"file={drive},if=virtio,format=raw,cache=unsafe"]
    command += ["-append", f"console=ttyS0 quiet panic=-1 part={script} only={only}"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=BOOT_DEADLINE, check=False)
        return done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(errors="replace") + "\n(the machine did not end in time)"


def said(text):
    """What it said, by name."""
    return dict(re.findall(r"@(\S+) ?([^\r\n]*)", text))
