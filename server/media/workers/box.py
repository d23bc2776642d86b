"""Shuts a decode worker in, once it is up: what a file has taken over gets nothing but that file.

A decoder is a million lines of C that reads what strangers send. Its worker therefore gives up, for good:

    environment   all variables, among them keys and tokens
    user          root's rights, where the server has them
    network       every device: a network of its own, with nothing in it
    files         the file system: a root of its own, with nothing in it but fonts, read-only
    capabilities  all of them
    limits        descriptors, and files larger than its memory
    system calls  new sockets, programs, processes, files for writing; a look into others

Kernels and containers refuse one or the other of these; `shut_in` says which, and the rest holds. Nothing is asked of
the system but prctl(2), unshare(2), mount(2) and seccomp(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import os
import resource
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
"""Of linux/prctl.h."""
NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_NETWORK = 0x0002_0000, 0x0800_0000, 0x1000_0000, 0x4000_0000
THREAD = 0x0001_0000
"""Flags of clone(2)."""
READ_ONLY, NO_SUID, NO_DEVICES, NO_PROGRAMS, REMOUNT, BIND, RECURSIVE, PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
"""Flags of mount(2)."""
CAPABILITY_VERSION = 0x2008_0522
NOBODY = 65_534
FONTS = ("/usr/share/fonts", "/usr/local/share/fonts", "/usr/share/X11/fonts")
"""Where PDFium looks for what a document names and does not hold."""
NEW_ROOT = "/tmp"  # noqa: S108  any folder that is there everywhere: it is covered, for this process alone
DESCRIPTORS = 64

_libc = ctypes.CDLL(None, use_errno=True)

FORBIDDEN = (
    # Networks
    "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4",
    # Programs and processes
    "execve", "execveat", "fork", "vfork", "kill", "tkill", "pidfd_open", "pidfd_getfd", "pidfd_send_signal",
    "rt_sigqueueinfo", "rt_tgsigqueueinfo", "setpriority", "sched_setscheduler",
    # A look into others
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "perf_event_open",
    # Files
    "creat", "unlink", "unlinkat", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "mknod", "mknodat", "link",
    "linkat", "symlink", "symlinkat", "chmod", "fchmodat", "chown", "lchown", "fchownat", "truncate", "setxattr",
    "removexattr", "utimensat",
    # What has another system inside
    "bpf", "io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "keyctl", "add_key", "request_key",
    # The way out
    "unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_by_handle_at", "name_to_handle_at",
    "fsopen", "fsmount", "move_mount", "open_tree", "init_module", "finit_module", "kexec_load", "reboot", "swapon",
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups",
)  # fmt: skip
"""System calls that fail in a worker. Those that the kernel or its library does not know are passed over."""
ABSENT = ("clone3", "openat2")
"""Calls whose arguments no filter can see; libraries take the older ones instead."""


def shut_in(memory_bytes: int) -> list[str]:
    """Give up all of the above, for good; returns what could not be given up, and why.

    `memory_bytes` is the most that this process may write into memory files. Modules that are needed later have to be
    imported, and files to be open.
    """
    missing: list[str] = []
    seccomp()  # while there are files

    def give_up(name: str, step: Callable[[], object]) -> bool:
        try:
            step()
        except (OSError, ImportError, RuntimeError) as error:
            missing.append(f"{name} ({error})")
            return False
        return True

    give_up("environment", os.environ.clear)
    sees_no_files = give_up("namespaces", _leave_system)
    give_up("user", _leave_root)
    give_up("capabilities", _drop_capabilities)
    give_up("limits", lambda: _limit(memory_bytes))
    give_up("privileges", _forbid_privileges)
    give_up("system calls", lambda: _forbid_calls(files=not sees_no_files))
    return missing


@cache
def seccomp() -> ModuleType | None:
    """The binding of libseccomp, if the library is there. To look for it takes a program, and 50 ms."""
    try:
        return importlib.import_module("pyseccomp")
    except (ImportError, RuntimeError):
        return None


def _leave_system() -> None:
    """Into namespaces with no network and no files. Without root's rights that takes a namespace of users, too."""
    flags = NEW_NETWORK | NEW_MOUNTS | NEW_IPC
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # root in a container has no right to it, but often to the other way
            _call(_libc.unshare, flags)
            _empty_root()
            return
    user, group = os.geteuid(), os.getegid()
    _call(_libc.unshare, flags | NEW_USER)
    for file, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", file).write_text(line, encoding="ascii")
    _empty_root()


def _empty_root() -> None:
    """Only fonts are left of all files, for this process alone."""
    _mount(None, "/", None, RECURSIVE | PRIVATE)
    _mount("tmpfs", NEW_ROOT, "tmpfs", NO_SUID | NO_DEVICES | NO_PROGRAMS, b"size=64k,mode=755")
    for folder in filter(os.path.isdir, FONTS):
        place = NEW_ROOT + folder
        os.makedirs(place)
        _mount(folder, place, None, BIND | RECURSIVE)
    _mount(None, NEW_ROOT, None, BIND | REMOUNT | READ_ONLY | NO_SUID | NO_DEVICES | NO_PROGRAMS)
    os.chroot(NEW_ROOT)
    os.chdir("/")


def _leave_root() -> None:
    if os.geteuid() == 0 and _is_mapped(NOBODY):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _is_mapped(user: int) -> bool:
    """Whether there is such a user in this namespace; in one of its own, root is nobody outside."""
    with contextlib.suppress(OSError):
        os.seteuid(user)
        os.seteuid(0)
        return True
    return False


def _drop_capabilities() -> None:
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    _call(_libc.capset, header, bytes(24))


def _limit(memory_bytes: int) -> None:
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_FSIZE, memory_bytes),
    ):
        resource.setrlimit(what, (most, most))


def _forbid_privileges() -> None:
    _call(_libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call(_libc.prctl, PR_SET_DUMPABLE, 0, 0, 0, 0)


def _forbid_calls(*, files: bool) -> None:
    """With `files`, no file can be opened at all: where its root is the server's own, there is nothing for it there."""
    library = seccomp()
    if library is None:
        raise RuntimeError("libseccomp is missing; on Debian and Ubuntu it comes with libseccomp2")
    masked, no = library.MASKED_EQ, library.ERRNO(errno.EPERM)
    rules = library.SyscallFilter(library.ALLOW)

    def forbid(name: str, *when: object, action: int = no) -> None:
        with contextlib.suppress(OSError):  # a call that this machine does not have
            rules.add_rule(action, name, *when)

    for name in FORBIDDEN:
        forbid(name)
    for name in ABSENT:
        forbid(name, action=library.ERRNO(errno.ENOSYS))
    forbid("clone", library.Arg(0, masked, THREAD, 0))
    forbid("tgkill", library.Arg(0, library.NE, os.getpid()))
    for name, place in (("open", 1), ("openat", 2)):
        if files:
            forbid(name)
            continue
        for mask, value in (
            (os.O_ACCMODE, os.O_WRONLY),
            (os.O_ACCMODE, os.O_RDWR),
            (os.O_CREAT, os.O_CREAT),
            (os.O_TRUNC, os.O_TRUNC),
        ):
            forbid(name, library.Arg(place, masked, mask, value))
    rules.load()


def _mount(source: str | None, place: str, kind: str | None, flags: int, data: bytes | None = None) -> None:
    def encoded(text: str | None) -> bytes | None:
        return None if text is None else text.encode()

    _call(_libc.mount, encoded(source), encoded(place), encoded(kind), ctypes.c_ulong(flags), data)


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
