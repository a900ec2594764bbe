"""Whether the Hugging Face hub can be reached."""

import functools
import os
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 2.0  # seconds; the hub's libraries try for half a minute if no name can be resolved


@functools.cache
def reachable() -> bool:
    """Tell whether the hub, or the proxy to it, answers within ``PATIENCE`` seconds; asked once a process.

    It respects ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE``, as the hub's own libraries do.
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

    def connect() -> None:  # in a thread: resolving a name has no time limit
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
    """Make the library ``datasets`` use its cache only, if the hub cannot be reached."""
    if not reachable():
        import datasets
        from huggingface_hub import constants

        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True  # both are read when they are imported
        datasets.config.HF_HUB_OFFLINE = True
