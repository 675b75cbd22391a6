"""How the hosts are written that requests may go to: ``[http://]HOST[:PORT]``, ``*.DOMAIN``, ``*``."""

from __future__ import annotations


def pattern_problem(pattern: str) -> str | None:
    """Why an entry of the list of hosts is none, or None."""
    _, host, port = parts_of(pattern)
    if not host or any(char in host for char in "/?#@ ") or ("*" in host and host != "*" and not host.startswith("*.")):
        return "must be HOST, HOST:PORT, *.DOMAIN or *, with http:// before it for plain HTTP"
    if host.startswith("*.") and "*" in host[2:]:
        return "may have one * only, at its start"
    return None if port is None or port == "*" or (port.isdigit() and 0 < int(port) < 65536) else "has no valid port"


def parts_of(pattern: str) -> tuple[str, str, str | None]:
    """Scheme (https where none is given), host, and port where one is given."""
    scheme, found, rest = pattern.rpartition("://")
    scheme = scheme if found else "https"
    host, colon, port = rest.rpartition(":")
    if not colon or "]" in port:
        host, port = rest, ""
    return scheme, host.strip("[]").rstrip(".").lower(), port or None
