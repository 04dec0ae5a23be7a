"""The issuer's keys, and tokens: those that the node accepts, and those that it must reject."""

import base64
import hashlib
import hmac
import json
import subprocess
import time
from pathlib import Path

ISSUER, LOAD_ISSUER = "https://id.example", "https://load.example"
AUDIENCE = "roomcast"
KEY_ID = "2026"
LIFETIME = 3600
DAY = 24 * 3600


def create_key(file):
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", file)


def public_pem(file):
    return openssl("pkey", "-in", file, "-pubout")


def jwk(file):
    point = openssl("pkey", "-in", file, "-pubout", "-outform", "DER")[-64:]
    x, y = encoded(point[:32]), encoded(point[32:])
    return {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID, "x": x, "y": y}


def openssl(*arguments, stdin=None):
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=True).stdout


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def es256(key, data):
    """The signature in the form of RFC 7518: the two numbers of openssl's DER, each in 32 bytes."""
    der = openssl("dgst", "-sha256", "-sign", key, stdin=data)
    first = der[4 : 4 + der[3]]
    second = der[6 + der[3] :]
    return b"".join(int.from_bytes(number, "big").to_bytes(32, "big") for number in (first, second))


class Signer:
    """Signs tokens with the issuer's private key."""

    def __init__(self, keys):
        self.key, self.other_key = str(Path(keys) / "issuer.pem"), str(Path(keys) / "other.pem")

    def token(self, user="mallory", header=None, key=None, sign=None, **claims):
        """A valid token, but for the changes. A claim that is `None` is left out. `sign` replaces the signature."""
        now = int(time.time())
        claims = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": user, "iat": now, "exp": now + LIFETIME, "roles": ["member"],
        } | claims  # fmt: skip
        header = {"typ": "JWT", "alg": "ES256", "kid": KEY_ID} | (header or {})
        claims = {name: value for name, value in claims.items() if value is not None}
        signed = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        signature = sign(signed.encode()) if sign else es256(key or self.key, signed.encode())
        return f"{signed}.{encoded(signature)}"

    def bad_tokens(self):
        """Tokens that the node must reject, by what is wrong with them."""
        now = int(time.time())
        public = public_pem(self.key)

        def with_public_key(data):
            return hmac.digest(public, data, hashlib.sha256)

        embedded = {"jwk": jwk(self.other_key), "kid": None}
        foreign = {"jku": "https://evil.example/jwks", "x5u": "https://evil.example/key"}
        return {
            "alg none": self.token(header={"alg": "none"}, sign=lambda _: b""),
            "alg none with a signature": self.token(header={"alg": "none"}),
            "HS256 signed with the public key": self.token(header={"alg": "HS256"}, sign=with_public_key),
            "jku and x5u of a foreign key": self.token(header=foreign, key=self.other_key),
            "an embedded jwk": self.token(header=embedded, key=self.other_key),
            "an unknown crit": self.token(header={"crit": ["urn:example"], "urn:example": True}),
            "a forged signature": self.token(key=self.other_key),
            "exp missing": self.token(exp=None),
            "exp negative": self.token(exp=-1),
            "exp huge": self.token(exp=10**30),
            "exp a string": self.token(exp=str(now + LIFETIME)),
            "expired": self.token(iat=now - 2 * LIFETIME, exp=now - LIFETIME),
            "aud missing": self.token(aud=None),
            "aud wrong": self.token(aud="others"),
            "iss missing": self.token(iss=None),
            "iss wrong": self.token(iss="https://evil.example"),
            "iat missing": self.token(iat=None),
            "nbf in the future": self.token(nbf=now + 1800),
            "a lifetime over the maximum": self.token(exp=now + 2 * DAY),
            "the kid of another issuer": self.token(iss=LOAD_ISSUER),
            "over max_token": self.token(padding="x" * 9000, sign=lambda _: b"x" * 64),
            "an empty user": self.token(user=""),
            "a user of 300 bytes": self.token(user="u" * 300),
            "a user with a bidi character": self.token(user="ann\u202ebob"),
            "a user with a slash": self.token(user="ann/bob"),
        }
