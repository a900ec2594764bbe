"""A W&B server on the loopback: enough of its GraphQL for a run to start, log and finish."""

import http.server
import json
import threading

RESUMED = {
    "id": "x", "name": "x", "displayName": "x", "summaryMetrics": "{}", "config": "{}", "tags": [], "notes": None,
    "wandbConfig": '{"t": 1}', "logLineCount": 0, "historyLineCount": 5, "eventsLineCount": 0, "eventsTail": "[]",
    "historyTail": json.dumps([json.dumps({"_step": 40, "_runtime": 3})]),
}  # fmt: skip


class Server(http.server.ThreadingHTTPServer):
    """``requests``: (path, body) of each; ``resumed``: runs are there, up to step 40; ``mute``: answer nothing."""

    daemon_threads = True

    def __init__(self, *, mute: bool = False, resumed: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mute, self.resumed = mute, resumed
        self.requests: list[tuple[str, str]] = []
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def rows(self) -> list[dict]:
        """The history that was uploaded."""
        streams = [json.loads(body)["files"] for path, body in self.requests if path.endswith("file_stream")]
        return [json.loads(line) for s in streams for line in s.get("wandb-history.jsonl", {}).get("content", [])]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace")
        self.server.requests.append((self.path, body))
        if self.server.mute:
            self.server.closing.wait(60)
            return
        answer = json.dumps({"data": self.answer(body)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def answer(self, body: str) -> dict:
        project = {"id": "p", "name": "genbench", "entity": {"id": "e", "name": "me"}}
        if "RunResumeStatus" in body:
            return {"model": {**project, "bucket": RESUMED if self.server.resumed else None}}
        if "mutation UpsertBucket" in body:
            name = json.loads(body)["variables"]["name"]
            bucket = {"id": name, "name": name, "displayName": name, "project": project, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": not self.server.resumed}}
        if "CreateRunFiles" in body:
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": []}}
        return {}

    def log_message(self, *args: object) -> None:
        pass
