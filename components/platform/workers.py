"""How the processes of a pool are started."""

import multiprocessing
import tempfile
from multiprocessing.context import BaseContext
from typing import Final

_LONGEST: Final = 103
"""Bytes of a socket's path on every system, without the zero at its end (unix(7); Linux takes 107)."""
_SOCKET: Final = "/pymp-12345678/listener-12345678"
"""What `multiprocessing` puts behind the folder for temporary files."""


def workers_context(*modules: str) -> BaseContext:
    """By a server that forks: a fork of this process could inherit locks held by threads of Arrow or a cloud client.

    Args:
        modules: what that server imports once for all its processes; nothing that starts threads.

    That server listens on a socket below the folder for temporary files. Where the folder's path is too long for a
    socket, each process starts anew: slower by a second, and without one.
    """
    folder = tempfile.gettempdir()
    fits = len(f"{folder}{_SOCKET}".encode(errors="surrogateescape")) <= _LONGEST
    context = multiprocessing.get_context("forkserver" if fits else "spawn")
    context.set_forkserver_preload(list(modules))
    return context
