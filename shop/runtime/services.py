"""The services of one process: database, cache, provider, keys.  Each is opened on first use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

from shop.adapters.connection_attempts import ConnectionAttempts
from shop.runtime.config import Settings
from shop.runtime.message_context import traceparent_now

if TYPE_CHECKING:
    from shop.adapters.cache import Cache
    from shop.adapters.counters import Counters
    from shop.adapters.db import Database
    from shop.adapters.mail_server import Mailing
    from shop.adapters.payment_provider.protocol import Provider
    from shop.adapters.replica import Replica
    from shop.adapters.signatures import Verifier
    from shop.adapters.tokens import TokenIssuer, TokenVerifier
    from shop.runtime.config import Secret
    from shop.runtime.key_callers import KeyCallers
    from shop.runtime.publisher import Publisher

Service = TypeVar("Service")

DEPENDENCIES = ("postgres", "redis", "provider", "broker")


class Services:
    """The services that handlers and the runtime share; thread-safe."""

    def __init__(self, settings: Settings, *, source: str) -> None:
        self.settings = settings
        self.source = source
        self._instances: dict[str, object] = {}
        self._lock = threading.RLock()
        self._attempts = {name: ConnectionAttempts() for name in DEPENDENCIES}

    def _once(self, name: str, open_service: Callable[[], Service]) -> Service:
        if name not in self._instances:
            with self._lock:
                if name not in self._instances:
                    self._instances[name] = open_service()
        return cast("Service", self._instances[name])

    @property
    def database(self) -> Database:
        """The process's connections."""
        return self._once("database", self._open_database)

    @property
    def cache(self) -> Cache:
        """Redis, or an empty cache where none is configured."""
        return self._once("cache", self._open_cache)

    @property
    def counters(self) -> Counters:
        """Counters over all replicas, for limits."""
        return self._once("counters", self._open_counters)

    @property
    def provider(self) -> Provider:
        """The payment provider."""
        return self._once("provider", self._open_provider)

    @property
    def mailing(self) -> Mailing:
        """What mails are sent with."""
        return self._once("mailing", self._open_mailing)

    @property
    def tokens(self) -> TokenVerifier:
        """Verifies access tokens."""
        return self._once("tokens", self._open_tokens)

    @property
    def key_callers(self) -> KeyCallers:
        """Finds the callers of API keys."""
        return self._once("key_callers", self._open_key_callers)

    @property
    def token_issuer(self) -> TokenIssuer:
        """Issues access tokens; only for a process that has the private key."""
        return self._once("token_issuer", self._open_issuer)

    @property
    def events(self) -> Verifier:
        """Verifies the signatures of events."""
        return self._once("events", self._open_verifier)

    @property
    def publisher(self) -> Publisher:
        """Publishes this process's events to the broker."""
        return self._once("publisher", self._open_publisher)

    @property
    def replica(self) -> Replica | None:
        """The streaming replica; None without DATABASE_REPLICA_URL."""
        if not self.settings.database_replica_url.reveal():
            return None
        return self._once("replica", self._open_replica)

    def database_metrics(self) -> tuple[int, int, float]:
        """Round trips to PostgreSQL, transactions, and seconds waited for it so far."""
        opened = [self.database] if "database" in self._instances else []
        if self._opened_replica is not None:
            opened.append(self._opened_replica.database)
        return (
            sum(one.round_trips for one in opened),
            sum(one.transactions for one in opened),
            sum(one.waiting_seconds for one in opened),
        )

    def replica_reads(self) -> dict[tuple[str, ...], int]:
        """The reads that may lag so far, by what answered them or why the replica did not."""
        replica = self._opened_replica
        return {(name,): count for name, count in replica.reads.items()} if replica else {}

    def repeated_connections(self) -> dict[tuple[str, ...], int]:
        """How often a refused connection was opened again so far, by server."""
        return {(name,): attempts.repeated for name, attempts in self._attempts.items()}

    @property
    def open_deliveries(self) -> int:
        """How many requests to the broker go on after the requests that caused them."""
        return self.publisher.open_deliveries if "publisher" in self._instances else 0

    def close(self) -> None:
        """Closes the connections, at the end of the process."""
        if "database" in self._instances:
            self.database.close()
        if self._opened_replica is not None:
            self._opened_replica.database.close()
        if "cache" in self._instances:
            self.cache.close()

    @property
    def _opened_replica(self) -> Replica | None:
        return self.replica if "replica" in self._instances else None

    def _open_database(self) -> Database:
        return self._connect(self.settings.database_url, self._attempts["postgres"])

    def _open_replica(self) -> Replica:
        from shop.adapters.replica import Replica

        settings = self.settings
        # refused once, the primary is asked instead
        once = ConnectionAttempts(outage_seconds=0)
        database = self._connect(settings.database_replica_url, once)
        return Replica(database, lag_seconds_max=settings.database_replica_lag_seconds)

    def _connect(self, url: Secret, attempts: ConnectionAttempts) -> Database:
        # imported here: a function without a database loads no driver
        from shop.adapters.db import Database

        return Database(
            url.reveal(),
            source=self.source,
            prepare=self.settings.database_prepare,
            attempts=attempts,
        )

    def _open_cache(self) -> Cache:
        from shop.adapters.cache import Cache

        return Cache(self.settings.redis_url.reveal() or None, attempts=self._attempts["redis"])

    def _open_counters(self) -> Counters:
        from shop.adapters.counters import Counters

        return Counters(self.cache)

    def _open_provider(self) -> Provider:
        from shop.adapters.payment_provider.factory import open_provider
        from shop.adapters.payment_provider.protocol import ActionOptions
        from shop.runtime.instrumented import InstrumentedProvider

        settings = self.settings
        provider = open_provider(
            settings.payment_provider,
            settings.payment_provider_url,
            settings.payment_provider_api_key.reveal(),
            settings.payment_provider_timeout_seconds,
            traceparent_now,
            self._attempts["provider"],
            ActionOptions(
                action_seconds=settings.payment_action_seconds,
                transfer_seconds=settings.payment_transfer_seconds,
                return_url=settings.payment_return_url,
                client_key=settings.payment_client_key,
            ),
        )
        return InstrumentedProvider(provider)

    def _open_mailing(self) -> Mailing:
        from shop.adapters.mail_server import Mailing, MailServer
        from shop.runtime.instrumented import InstrumentedMailServer

        settings = self.settings
        return Mailing(
            server=InstrumentedMailServer(MailServer(settings.smtp_url.reveal())),
            sender=settings.mail_sender,
            shop_name=settings.shop_name,
            shop_url=settings.shop_address,
            link_key=settings.link_key.reveal(),
        )

    def _open_tokens(self) -> TokenVerifier:
        from shop.adapters.tokens import TokenVerifier

        settings = self.settings
        return TokenVerifier(settings.jwt_jwks, settings.jwt_issuer, settings.jwt_audience)

    def _open_key_callers(self) -> KeyCallers:
        # imported here: most processes are called with access tokens only
        from shop.runtime.key_callers import KeyCallers

        return KeyCallers(self.database)

    def _open_issuer(self) -> TokenIssuer:
        from shop.adapters.tokens import TokenIssuer
        from shop.primitives.clock import utc_now

        settings = self.settings
        return TokenIssuer(
            settings.jwt_private_key.reveal(), settings.jwt_issuer, settings.jwt_audience, utc_now
        )

    def _open_verifier(self) -> Verifier:
        from shop.adapters.signatures import verifier_from_json

        return verifier_from_json(self.settings.event_keys)

    def _open_publisher(self) -> Publisher:
        from shop.runtime.publisher import Publisher

        return Publisher(self.settings, self._attempts["broker"])
