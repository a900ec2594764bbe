"""The Hugging Face hub: whether there is a network to it."""

import functools
import os
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 2.0  # seconds; the hub's libraries try for half a minute where no name can be resolved


@functools.cache
def reachable() -> bool:
    """Whether a connection to the hub, or to the proxy before it, can be had within ``PATIENCE``; asked once a process.

    ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` are heeded as the hub's own libraries do.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    server = urlsplit(constants.ENDPOINT)
    proxy = getproxies().get(server.scheme)
    if proxy and not proxy_bypass(server.hostname or ""):
        server = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    address = (server.hostname or "", server.port or (80 if server.scheme == "http" else 443))
    answered = threading.Event()

    def connect() -> None:  # in a thread: the resolver of names knows no limit of time
        try:
            socket.create_connection(address, timeout=PATIENCE).close()
        except OSError:
            return
        answered.set()

    asking = threading.Thread(target=connect, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return answered.is_set()


def go_offline() -> None:
    """Let the library ``datasets`` look into its cache alone where there is no network to the hub."""
    if not reachable():
        import datasets
        from huggingface_hub import constants

        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True  # both are read when they are imported
        datasets.config.HF_HUB_OFFLINE = True
