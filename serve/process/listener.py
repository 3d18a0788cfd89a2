"""The listening socket."""

from __future__ import annotations

import ipaddress
import socket

from ...errors import UsageError

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address, which forked processes share.

    Args:
        host: a name or an address, also of IPv6; ``0.0.0.0`` or ``::`` for all of this machine.
        port: 0 for a free one.

    Raises:
        UsageError: the address is not one of this machine, is in use, or needs other rights.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.set_inheritable(True)
    except OSError as error:
        listener.close()
        raise _refused(host, port, error) from error
    return listener


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """The address as the beginning of a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _refused(host: str, port: int, error: OSError) -> UsageError:
    return UsageError(
        "the server cannot listen",
        found=f"{host} port {port}: {error.strerror or error}",
        remedy="Give another --host or --port.",
    )
