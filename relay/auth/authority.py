"""Authentication of a running relay: tokens, client certificates and revocations, as its settings require."""

from collections.abc import Awaitable, Callable, Mapping

from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth.client_certificates import ClientCertificates
from tickertape.relay.auth.revocation_list import Revocations
from tickertape.relay.auth.settings import AuthSettings
from tickertape.relay.auth.token_service import TokenService
from tickertape.relay.core.grants import Grant

from tickertape.process.tasks import Tasks


class Authority:
    """Authority that decides who may connect.

    Args:
        settings: settings of a relay with ``--auth jwt`` or ``--auth certificate``, without an
            ``auth_settings_error``.

    Attributes:
        verify: returns the grant of a token; None if tokens are not accepted.
        certificate_grant: returns the grant of a client certificate; None if certificates are not accepted.

    Raises:
        KeysError: the key cannot be used.
        RevocationsError: the list of revocations cannot be read.
        CertificateGrantsError: the grants of certificates cannot be read.
    """

    def __init__(self, settings: AuthSettings) -> None:
        revoked_file, grants_file = settings.jwt_revoked_file, settings.tls_client_grants
        self._revocations = None if revoked_file is None else Revocations(revoked_file)
        self._certificates = None if grants_file is None else ClientCertificates(grants_file)
        self._tokens = TokenService(settings, self._revocations) if settings.auth == "jwt" else None
        self.verify = None if self._tokens is None else self._tokens.verify
        self.certificate_grant: Callable[[bytes], Grant] | None = (
            None if self._certificates is None else self._grant_of_certificate
        )

    def __repr__(self) -> str:
        return f"Authority({self._tokens!r}, {self._certificates!r}, {self._revocations!r})"

    @property
    def failures(self) -> Mapping[str, int]:
        """Number of rejected tokens by reason."""
        return {} if self._tokens is None else self._tokens.failures

    @property
    def sources(self) -> Mapping[str, bool]:
        """Whether the revocations, client grants and keys in force are those of their file or URL."""
        sources = {
            "revocations": None if self._revocations is None else self._revocations.valid,
            "client_grants": None if self._certificates is None else self._certificates.valid,
            "keys": None if self._tokens is None else self._tokens.valid,
        }
        return {name: valid for name, valid in sources.items() if valid is not None}

    @property
    def ready(self) -> bool:
        """Whether clients can be authenticated: the issuer's keys have been fetched."""
        return self._tokens is None or self._tokens.ready

    def is_revoked(self, grant: Grant) -> bool:
        """Return whether a token or certificate is revoked, or the grant of the certificate has changed."""
        if self._revocations is not None and self._revocations.is_revoked(grant):
            return True
        certificate = grant.certificate
        return (
            certificate is not None
            and self._certificates is not None
            and not self._certificates.is_current(certificate)
        )

    async def load(self) -> None:
        """Fetch the issuer's keys once if they come from a URL; ``run`` refreshes them.

        Raises:
            KeysError: the keys cannot be fetched.
        """
        if self._tokens is not None:
            await self._tokens.load()

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep keys, revocations and grants up to date until cancelled.

        Args:
            changed: called when ``is_revoked`` may return True for more grants.
        """
        async with Tasks() as tasks:
            if self._tokens is not None:
                tasks.start(self._tokens.run(), "keys")
            if self._revocations is not None:
                tasks.start(self._revocations.run(changed), "revocations")
            if self._certificates is not None:
                tasks.start(self._certificates.run(changed), "certificates")
            await tasks.until()  # a fixed key needs no task

    def reloaders(self) -> list[Callable[[], Awaitable[str]]]:
        """Return functions that reload keys, revocations and grants.

        Each returns a description of what was loaded, or raises an ``OperatorError`` and changes nothing.
        Existing sessions continue even if the key of their token is removed; revoke their tokens to end them.
        """
        reloaders = [] if self._tokens is None else self._tokens.reloaders()
        if self._revocations is not None:
            reloaders.append(self._revocations.reload)
        if self._certificates is not None:
            reloaders.append(self._certificates.reload)
        return reloaders

    def _grant_of_certificate(self, der: bytes) -> Grant:
        assert self._certificates is not None
        grant = self._certificates.grant(der)
        if self._revocations is not None and self._revocations.is_revoked(grant):
            raise ProtocolError(ErrorCode.UNAUTHORIZED, "the client certificate is revoked; get a new one")
        return grant
