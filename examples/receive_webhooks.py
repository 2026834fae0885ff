"""A receiver of webhooks with nothing but Python's standard library: verifies each message and prints what happened.

    python3 examples/receive_webhooks.py 9000 whsec_…

It checks what docs/webhooks.md says: the signature (of any secret that signs), the age, and whether the message was seen
before. A receiver for real keeps the ids of messages where they outlive it, and takes a message in the same transaction.
"""

import base64
import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

TOLERANCE_SECONDS = 300
BODY_BYTES_MAX = 1 << 20


def is_genuine(secret: str, headers, body: bytes) -> bool:
    """Whether the message was signed with this secret (`whsec_…`), not long ago."""
    identity, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.new(key, f"{identity}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(signed).decode()
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected, signature) for signature in given)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    secret = ""
    seen: set[str] = set()

    def do_POST(self):
        length = int(self.headers.get("content-length", "0"))
        if length > BODY_BYTES_MAX:
            return self.answer(413)
        body = self.rfile.read(length)
        if not is_genuine(self.secret, self.headers, body):
            return self.answer(401)
        identity = self.headers["webhook-id"]
        if identity not in self.seen:
            self.seen.add(identity)
            message = json.loads(body)
            print(message["timestamp"], message["type"], message["data"]["subjectId"], flush=True)
        self.answer(204)

    def answer(self, status: int):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    port, Receiver.secret = int(sys.argv[1]), sys.argv[2]
    HTTPServer(("127.0.0.1", port), Receiver).serve_forever()
