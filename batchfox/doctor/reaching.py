"""Is there a way from here to the API: its name, a connection, TLS. Says which of these fails, and waits for none."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from batchfox.doctor.remark import Remark

STEP_S = 2.0
_MOST_ADDRESSES = 3
_PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")

_Address = tuple[Any, ...]


def find_obstacle(base_url: str, shown: str) -> Remark | None:
    """What is in the way to the API, or None. Each step takes `STEP_S` seconds at most; nothing is asked of the API."""
    url = urlsplit(base_url)
    host, is_tls = url.hostname or "", url.scheme == "https"
    port = url.port or (443 if is_tls else 80)
    try:
        addresses = _resolve(host, port)
    except OSError as error:
        return _obstacle(shown, f'the name "{host}" is not found ({_say(error)})', "look at the network and its DNS")
    try:
        connection = _connect(addresses)
    except OSError as error:
        mend = "look at the network, its firewall and VPN"
        return _obstacle(shown, f"no connection to {host}, port {port} ({_say(error)})", mend)
    try:
        return _shake_hands(connection, host, shown) if is_tls else None
    finally:
        connection.close()


def _resolve(host: str, port: int) -> list[_Address]:
    """Asks in a thread that is left behind where it hangs: no resolver can be told how long to wait."""
    found: list[_Address] = []
    failed: list[OSError] = []

    def ask() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            failed.append(error)
        except UnicodeError:
            failed.append(OSError("no name that DNS could know"))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(STEP_S)
    if failed:
        raise failed[0]
    if thread.is_alive() or not found:
        raise TimeoutError
    return found


def _connect(addresses: list[_Address]) -> socket.socket:
    """A connection to the first address that takes one. Raises `OSError`: what the last one said."""
    until = time.monotonic() + STEP_S
    failed: OSError = TimeoutError()
    for family, kind, protocol, _, address in addresses[:_MOST_ADDRESSES]:
        try:
            connection = socket.socket(family, kind, protocol)
        except OSError as error:  # a machine without IPv6
            failed = error
            continue
        try:
            connection.settimeout(max(until - time.monotonic(), 0.1))
            connection.connect(address)
        except OSError as error:
            connection.close()
            failed = error
            continue
        connection.settimeout(STEP_S)
        return connection
    raise failed


def _shake_hands(connection: socket.socket, host: str, shown: str) -> Remark | None:
    try:
        with ssl.create_default_context().wrap_socket(connection, server_hostname=host):
            return None
    except ssl.SSLCertVerificationError as error:
        mend = (
            "a wrong clock does that, a proxy that looks into TLS, or CA certificates that are missing (SSL_CERT_FILE "
            "names a file of them)"
        )
        return _obstacle(shown, f"the certificate is not trusted ({error.verify_message})", mend)
    except OSError as error:
        return _obstacle(shown, f"no TLS ({_say(error)})", "look at the port and at what stands between")


def _obstacle(shown: str, what: str, mend: str) -> Remark:
    proxies = [name for name in _PROXIES if os.environ.get(name)]
    hint = f"; {proxies[0]} is set, and batchfox goes through no proxy" if proxies else ""
    return Remark(what=what, where=shown, next=f"{mend}; is api.base_url right?{hint}")


def _say(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {STEP_S:g} s"
    return error.strerror or str(error) or type(error).__name__
