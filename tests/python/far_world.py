#!/usr/bin/env python3
"""What lies behind mail, push and signed requests, on a free loopback port: SendGrid, Google's token endpoint, FCM, and a
webhook receiver.

    far_world.py --folder DIR [--slow SECONDS]

Prints one JSON line, {"port": N, "account": path of the service account's key file}, when it listens, then one line for
each request: {"path", "status", "why": null or what is wrong with it, …}. Runs until its standard input ends.

The grant is checked by PyJWT, signatures of webhooks by the library of Standard Webhooks, messages against the fields
that FCM documents. A device token begins with what becomes of it: `dead…` is unregistered, `late…` is unavailable the
first time it is asked for, any other is accepted; --slow is how long an answer takes. /hook answers 503 to the first
delivery of a message, 200 to the next. The secret of the receiver is that of its path: /hook/whsec_…. While there is a
file `down` in the folder, SendGrid and FCM answer 503 with a Retry-After of a second.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

import jwt
from standardwebhooks import Webhook, WebhookVerificationError

EMAIL = "push@hireme.test"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
FIELDS = {"name", "data", "notification", "android", "webpush", "apns", "fcm_options", "token"}
MAIL_FIELDS = {"personalizations", "from", "reply_to", "subject", "content", "attachments", "headers"}
LOCK = threading.Lock()


class World:
    def __init__(self, folder, slow):
        self.folder, self.slow = folder, slow
        self.bearers, self.seen = set(), set()

    def make_account(self, port):
        key = self.folder / "key.pem"
        subprocess.run(
            ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key],
            check=True, capture_output=True)
        public = subprocess.run(["openssl", "pkey", "-in", key, "-pubout"], check=True, capture_output=True)
        self.public, self.token_uri = public.stdout, f"http://127.0.0.1:{port}/token"
        account = {"type": "service_account", "project_id": "hireme", "private_key_id": "k1", "client_email": EMAIL,
                   "private_key": key.read_text(), "token_uri": self.token_uri}
        path = self.folder / "account.json"
        path.write_text(json.dumps(account))
        return path

    def answer(self, path, headers, body):
        """The status, what is wrong (or None), the answer, and what else is worth a line."""
        if path == "/token":
            return self.grant(headers, body)
        if path == "/v3/mail/send":
            return self.mail(headers, json.loads(body))
        if path == "/v1/projects/hireme/messages:send":
            return self.send(headers, body)
        if path.startswith("/hook/"):
            return self.hook(unquote(path.removeprefix("/hook/")), headers, body)
        return 404, "nobody asks for this", {}, {}

    def grant(self, headers, body):
        form = parse_qs(body.decode(), strict_parsing=True)
        try:
            if form["grant_type"] != [GRANT] or headers["content-type"] != "application/x-www-form-urlencoded":
                raise ValueError("not the form of RFC 7523")
            [assertion] = form["assertion"]
            claims = jwt.decode(assertion, self.public, algorithms=["RS256"], audience=self.token_uri, issuer=EMAIL,
                                options={"require": ["exp", "iat", "iss", "aud"]})
            head = jwt.get_unverified_header(assertion)
            if (claims["scope"], head["typ"], head["kid"]) != (SCOPE, "JWT", "k1") or claims["exp"] - claims["iat"] > 3600:
                raise ValueError(f"{head} {claims}")
        except (KeyError, ValueError, jwt.PyJWTError) as error:
            return 400, repr(error), {"error": "invalid_grant", "error_description": str(error)}, {}
        bearer = f"ya29.{len(self.bearers)}"
        self.bearers.add(bearer)
        return 200, None, {"access_token": bearer, "expires_in": 3599, "token_type": "Bearer"}, {}

    def is_down(self):
        return (self.folder / "down").exists()

    def mail(self, headers, mail):
        if headers.get("authorization") != "Bearer SG.key":
            return 401, "not our key", {"errors": [{"message": "authorization required"}]}, {}
        if self.is_down():
            return 503, None, {}, {}
        try:
            [personalization], content = mail["personalizations"], mail["content"]
            to = [party["email"] for party in personalization["to"]]
            wrong = [f"unknown fields {extra}" for extra in [set(mail) - MAIL_FIELDS] if extra]
            wrong += ["no content"] * (not all(part["value"] for part in content))
            wrong += ["not plain first"] * (content[0]["type"] != "text/plain")
            wrong += ["no sender"] * ("@" not in mail["from"]["email"]) + ["no subject"] * (not mail["subject"])
        except (KeyError, TypeError, ValueError) as error:
            return 400, repr(error), {"errors": [{"message": "bad"}]}, {}
        return (400, "; ".join(wrong), {}, {}) if wrong else (202, None, {}, {"to": to})

    def send(self, headers, body):
        if headers.get("authorization", "").removeprefix("Bearer ") not in self.bearers:
            return 401, "no token of ours", {"error": {"status": "UNAUTHENTICATED"}}, {}
        document = json.loads(body)
        message = document.get("message", {})
        wrong = [f"unknown fields {extra}" for extra in [set(message) - FIELDS] if extra]
        wrong += ["not one message"] * (set(document) != {"message"})
        wrong += ["data is not of strings"] * (not all(isinstance(v, str) for v in message.get("data", {}).values()))
        token = message.get("token")
        if wrong or not isinstance(token, str):
            return 400, "; ".join(wrong) or "no token", {"error": {"status": "INVALID_ARGUMENT"}}, {}
        time.sleep(self.slow)
        if self.is_down():
            return 503, None, fcm_error("UNAVAILABLE"), {"token": token}
        first = token not in self.seen
        self.seen.add(token)
        if token.startswith("dead"):
            return 404, None, fcm_error("UNREGISTERED"), {"token": token}
        if token.startswith("late") and first:
            return 503, None, fcm_error("UNAVAILABLE"), {"token": token}
        return 200, None, {"name": "projects/hireme/messages/1"}, {"token": token}

    def hook(self, secret, headers, body):
        try:
            Webhook(secret).verify(body, headers)
        except WebhookVerificationError as error:
            return 401, f"{error}", {}, {}
        message = headers["webhook-id"]
        first = message not in self.seen
        self.seen.add(message)
        return (503 if first else 200), None, {}, {"id": message}


def fcm_error(code):
    kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
    return {"error": {"status": code, "message": "no", "details": [{"@type": kind, "errorCode": code}]}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, why, answer, more = self.server.world.answer(self.path, headers, body)
        text = json.dumps(answer).encode()
        with LOCK:
            print(json.dumps({"path": self.path, "status": status, "why": why, **more}), flush=True)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 503 and self.server.world.is_down():
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--slow", type=float, default=0)
    options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # A client that is killed in the middle is what the tests are about.
    server.handle_error = lambda *_: None
    server.world = World(options.folder, options.slow)
    account = server.world.make_account(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"port": server.server_port, "account": str(account)}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
