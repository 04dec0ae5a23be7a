"""A chat with moderation, and an assistant whose answers can be stopped. It needs only Python 3.9 or later."""

import base64
import hashlib
import hmac
import json
import os
import select
import socket
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

API = os.environ.get("API_URL", "http://127.0.0.1:3001")
API_KEY = os.environ["API_KEY"]
SECRET = base64.b64decode(os.environ["SIGNING_SECRET"].removeprefix("whsec_"))
if not SECRET:
    raise SystemExit("SIGNING_SECRET is empty")
PORT = int(os.environ.get("PORT", "8080"))

MAX_AGE = 300  # seconds; an older request may be a repeated one
FORBIDDEN = ["darn", "heck"]
ANSWER = "I am only an example , so I make up one word after another until I am done or you stop me .".split()
PAUSE = 0.3  # seconds between two words

running = set()  # the calls of assistant.ask that have not ended


class CallError(Exception):
    """The error that the caller gets. The node passes it on if the status is 4xx."""

    def __init__(self, status, code, message, **details):
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message, "details": details}}


def is_signed(signatures, *parts):
    """Whether one of the signatures is that of these parts. During a rotation of the secret, there are two."""
    expected = b"v1," + base64.b64encode(hmac.digest(SECRET, b"".join(parts), hashlib.sha256))
    return any(hmac.compare_digest(expected, signature) for signature in signatures.encode().split())


def is_from_node(method, path, headers, body):
    """Whether a node sent this request. Without this, anybody could claim to be any user."""
    id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > MAX_AGE:
        return False
    names = sorted(name.lower() for name in headers if name.lower().startswith("roomcast-"))
    lines = [id, timestamp, method, path, *(f"{name}:{headers[name]}" for name in names if name != "roomcast-signature")]
    return is_signed(headers.get("webhook-signature", ""), f"{id}.{timestamp}.".encode(), body) and is_signed(
        headers.get("roomcast-signature", ""), "".join(line + "\n" for line in lines).encode("latin-1")
    )


def publish(room, event, data):
    url = f"{API}/v1/rooms/{room}/events/{event}"
    headers = {"Authorization": f"Bearer {API_KEY}"}
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(data).encode(), headers), timeout=5).close()


class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        files = {"/": "page.html", "/client.js": "../../crates/node/page/client.js"}
        if file := files.get(self.path.split("?")[0]):
            type = "text/html; charset=utf-8" if file.endswith("html") else "text/javascript"
            self.respond(200, (Path(__file__).parents[1] / file).read_bytes(), type)
        else:
            self.respond(404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not is_from_node("POST", self.path, self.headers, body):
            self.respond(401)
            return
        try:
            if self.path == "/rpc/chat.send":
                self.send_message(body)
            elif self.path == "/rpc/assistant.ask":
                self.ask()
            elif self.path == "/rpc/assistant.running":
                self.respond(200, str(len(running)).encode())
            else:
                self.respond(404)
        except CallError as error:
            self.respond(error.status, json.dumps(error.body).encode(), "application/json")
        except urllib.error.URLError as error:
            print("cannot publish:", error, flush=True)
            self.respond(500)

    def send_message(self, body):
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise CallError(400, "INVALID_ARGUMENT", "the text is not UTF-8") from None
        for word in FORBIDDEN:
            if word in text.lower().split():
                raise CallError(400, "INVALID_ARGUMENT", f'the word "{word}" is not allowed', word=word)
        publish("chat", "message", {"from": unquote(self.headers.get("roomcast-user", "a guest")), "text": text})
        self.respond(204)

    def ask(self):
        """Streams an answer, word by word. When the caller cancels the call, the node closes the connection."""
        call = self.headers["roomcast-call"]
        running.add(call)
        try:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for word in ANSWER:
                if self.is_cancelled(PAUSE):
                    print(f"{call}: cancelled", flush=True)
                    return
                # One space follows the colon. A second one belongs to the word.
                self.wfile.write(f"data:  {word}\n\n".encode())
            self.wfile.write(b"event: end\n\n")
        except OSError:
            print(f"{call}: cancelled", flush=True)
        finally:
            running.discard(call)
            self.close_connection = True

    def is_cancelled(self, seconds):
        """Waits, and returns early if the node closes the connection."""
        readable, _, _ = select.select([self.connection], [], [], seconds)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def respond(self, status, body=b"", type="text/plain; charset=utf-8"):
        self.send_response(status)
        self.send_header("Content-Type", type)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        print(self.address_string(), format % arguments, flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", PORT), Backend).serve_forever()
