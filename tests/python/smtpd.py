#!/usr/bin/env python3
"""A real SMTP server on a free loopback port, which keeps every mail it accepts as a file.

    smtpd.py --folder DIR [--port N] [--starttls | --tls] [--user NAME --password WORD]
             [--reject-rcpt ADDRESS:CODE]… [--fail-first COUNT:CODE]

Prints one JSON line, {"port": N, "ca": path or null}, when it listens; `ca` is the certificate a client has to trust
(for the names `localhost` and 127.0.0.1). Runs until its standard input ends, so it never outlives the test.

The n-th accepted mail becomes DIR/000n.eml, byte for byte as sent, and DIR/000n.json with what the envelope said:
{"from", "to", "tls", "user"}. The .eml appears last and whole: where it is, both can be read.
--starttls refuses mail before STARTTLS; --user refuses it before AUTH; --reject-rcpt answers RCPT for that address with
the code; --fail-first answers the first COUNT mails with the code at the end of DATA.
"""

import argparse
import asyncio
import json
import logging
import ssl
import subprocess
import sys
import warnings
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

TEXTS = {4: "try again later", 5: "not accepted"}


class Mailbox:
    """The decisions of the server: which recipient, which mail, which login; and the folder."""

    def __init__(self, options):
        self.folder = options.folder
        self.rejected = dict(options.reject_rcpt)
        self.failures_left, self.failure = options.fail_first
        self.implicit_tls = options.tls
        self.login = (options.user, options.password)
        self.accepted = 0

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address in self.rejected:
            return reply(self.rejected[address])
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.failures_left > 0:
            self.failures_left -= 1
            return reply(self.failure)
        self.accepted += 1
        self.keep(f"{self.accepted:04}", session, envelope)
        return f"250 OK kept as {self.accepted:04}"

    def keep(self, name, session, envelope):
        about = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": self.implicit_tls or session.ssl is not None,
            "user": session.auth_data,
        }
        (self.folder / f"{name}.json").write_text(json.dumps(about))
        half = self.folder / f"{name}.part"
        half.write_bytes(envelope.original_content)
        half.rename(self.folder / f"{name}.eml")

    def authenticate(self, server, session, envelope, mechanism, data):
        # LOGIN and PLAIN are what aiosmtpd offers; both arrive in this shape.
        if isinstance(data, LoginPassword):
            given = (data.login.decode(), data.password.decode())
            if given == self.login:
                return AuthResult(success=True, auth_data=given[0])
        return AuthResult(success=False, handled=False)


def reply(code):
    return f"{code} {TEXTS[int(code) // 100]}"


def make_certificate(folder):
    """A certificate authority and a server certificate of two days: clients refuse an authority's own as a server's."""
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    # Without this empty configuration openssl.cnf would add extensions of its own.
    empty = folder / "openssl.cnf"
    empty.write_text("[req]\ndistinguished_name = dn\n[dn]\n")
    common = ["openssl", "req", "-x509", "-config", str(empty), *new_key]
    ca, ca_key, cert, key = (str(folder / name) for name in ("ca.pem", "ca.key", "server.pem", "server.key"))
    openssl(
        [*common, "-subj", "/CN=mail test authority", "-out", ca, "-keyout", ca_key]
        + ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    )
    openssl(
        [*common, "-subj", "/CN=localhost", "-out", cert, "-keyout", key, "-CA", ca, "-CAkey", ca_key]
        + ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return ca, context


def openssl(command):
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode != 0:
        raise SystemExit(f"openssl could not make a certificate: {made.stderr}")


async def serve(options):
    mailbox = Mailbox(options)
    ca, context = make_certificate(options.folder) if options.starttls or options.tls else (None, None)

    def session():
        return SMTP(
            mailbox,
            hostname="localhost",
            ident="test mail server",
            enable_SMTPUTF8=True,
            tls_context=context if options.starttls else None,
            require_starttls=options.starttls,
            authenticator=mailbox.authenticate if options.user else None,
            auth_required=bool(options.user),
            # A test may want AUTH on a plain loopback connection, and over --tls aiosmtpd sees no STARTTLS.
            auth_require_tls=options.starttls,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(session, "127.0.0.1", options.port, ssl=context if options.tls else None)
    print(json.dumps({"port": server.sockets[0].getsockname()[1], "ca": ca}), flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


def address_and_code(text):
    address, _, code = text.rpartition(":")
    return address, code_of(code)


def count_and_code(text):
    count, _, code = text.partition(":")
    return int(count), code_of(code)


def code_of(text):
    if not (text.isdigit() and int(text) // 100 in TEXTS):
        raise argparse.ArgumentTypeError(f"not a reply code of 4xx or 5xx: {text!r}")
    return text


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    security = parser.add_mutually_exclusive_group()
    security.add_argument("--starttls", action="store_true")
    security.add_argument("--tls", action="store_true", help="TLS from the first byte")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--reject-rcpt", type=address_and_code, action="append", default=[], metavar="ADDRESS:CODE")
    parser.add_argument("--fail-first", type=count_and_code, default=(0, "451"), metavar="COUNT:CODE")
    return parser.parse_args()


if __name__ == "__main__":
    # aiosmtpd warns of AUTH without STARTTLS and of its own deprecations; neither is news to a test.
    warnings.simplefilter("ignore")
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    asyncio.run(serve(parse_options()))
