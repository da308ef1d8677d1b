"""On which addresses processes listen."""

import psutil


def listening(of: int | None = None) -> set[tuple[str, int]]:
    """(address, port) of each socket on which a process or one that it has started listens."""
    found = set()
    top = psutil.Process(of)
    for process in [top, *top.children(recursive=True)]:
        try:
            connections = process.net_connections("inet")
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        own = [c.laddr for c in connections if c.status == psutil.CONN_LISTEN]
        found |= {(one.ip.removeprefix("::ffff:"), one.port) for one in own}
    return found
