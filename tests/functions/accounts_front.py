"""The accounts functions of one process, asked over their own wire: what the tests here share."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shop.adapters.tokens import public_jwk
from shop.registry import spec_of
from shop.runtime.app import App
from shop.runtime.config import Secret, Settings
from shop.runtime.http_messages import HttpRequest
from shop.runtime.services import Services

PASSWORD = "correct horse 배터리"
ISSUER = "https://shop.test"
AUDIENCE = "shop-api"


@dataclass(frozen=True)
class Answered:
    """What came back: status, headers and the JSON document, if there was one."""

    status: int
    headers: dict[str, str]
    raw: bytes
    json: Any = None


@dataclass
class Front:
    """``register`` and ``login`` in one process, with a key of their own."""

    database_url: str
    redis_url: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def __post_init__(self) -> None:
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        jwk = public_jwk(self.key.public_key().public_bytes_raw())
        settings = Settings(
            profile="local",
            database_url=Secret(self.database_url),
            redis_url=Secret(self.redis_url),
            jwt_private_key=Secret(pem),
            jwt_jwks=json.dumps({"keys": [jwk]}),
            jwt_issuer=ISSUER,
            jwt_audience=AUDIENCE,
            rate_limit_per_minute=0,
        )
        self.services = Services(settings, source="/shop/login")
        self._app = App((spec_of("register"), spec_of("login")), self.services)
        self._app.warm()

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        client: str = "198.51.100.7",
        **headers: str,
    ) -> Answered:
        """One request as the trusted hop would pass it on from ``client``."""
        content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        sent = {"x-forwarded-for": client}
        sent |= {name.replace("_", "-"): text for name, text in headers.items()}
        if body is not None:
            sent["content-type"] = "application/json"
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        wire = HttpRequest(
            method=method,
            path=path,
            query="",
            headers=sent,
            peer="127.0.0.1",
            read=io.BytesIO(content).read,
            content_length=len(content),
        )
        answer = self._app.answer(wire)
        document = json.loads(answer.body) if answer.body else None
        headers = {name.lower(): text for name, text in answer.headers.items()}
        return Answered(answer.status, headers, answer.body, document)

    def register(self, email: str, password: str = PASSWORD, **headers: str) -> Answered:
        """Asks for an account."""
        body = {"email": email, "password": password, "name": "김철수"}
        return self.ask("POST", "/users", body, **headers)

    def log_in(self, email: str, password: str = PASSWORD, **where: str) -> Answered:
        """Asks for a session."""
        return self.ask("POST", "/auth/login", {"email": email, "password": password}, **where)
