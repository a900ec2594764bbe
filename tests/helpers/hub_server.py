"""A Hugging Face hub on the loopback: enough of it for its library to fetch a file."""

import http.server
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(http.server.ThreadingHTTPServer):
    """``files``: content by path, ``owner/name/resolve/revision/file``; ``requests``: what was asked for."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.requests: list[tuple[str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        path = self.path.lstrip("/")
        self.server.requests.append((self.command, path))
        model, _, _ = path.partition("/resolve/")
        content = self.server.files.get(path)
        if content is None:
            known = any(file.startswith(f"{model}/resolve/") for file in self.server.files)
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        else:
            self.send_response(200)
            self.send_header("ETag", f'"{hash(content) % 2**64:016x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    do_GET = do_HEAD

    def log_message(self, *args: object) -> None:
        pass
