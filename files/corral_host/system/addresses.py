"""Whether this host has an address: it loses those of a link whose cable is pulled."""

import socket


def missing_address(endpoint):
    """Why nobody could listen at the address of an endpoint now, whatever its port; or None."""
    return None if endpoint["socket"] else unbound(endpoint["address"], 0)


def unbound(address, port):
    """Why a socket cannot be bound there, or None; port 0 is any that is free."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        # As servers do: connections in TIME_WAIT are no obstacle.
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            probe.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            probe.bind((address, port))
        except OSError as fault:
            return f"{address}{f' port {port}' if port else ''}: {fault.strerror}"
    return None
