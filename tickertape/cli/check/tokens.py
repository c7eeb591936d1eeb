"""Checks of authentication: the keys that verify tokens, a token, and the origin of a page."""

from collections.abc import Callable
from pathlib import Path

from tickertape.cli.check.finding import Finding
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import MAX_TOKEN
from tickertape.relay.auth.authority import Authority
from tickertape.relay.auth.claims import TokenError
from tickertape.relay.auth.client_certificates import CertificateGrantsError
from tickertape.relay.auth.keys import KeysError
from tickertape.relay.auth.origins import parse_entry, parse_origin
from tickertape.relay.auth.revocation_list import RevocationsError
from tickertape.relay.core.grants import Grant
from tickertape.relay.settings import RelaySettings
from tickertape.text import count
from tickertape.urls import is_loopback


async def check_tokens(settings: RelaySettings, token_file: Path | None = None) -> list[Finding]:
    """Load the keys as the relay does, and verify a token with them.

    Args:
        settings: settings of the relay; a JWKS is fetched once.
        token_file: file with the token to verify; the token is never printed.
    """
    if settings.auth != "jwt" and token_file is not None:
        label = f"--auth {settings.auth} does not use tokens"
        return [Finding.warn("token", label, "set --auth jwt to verify one")]
    if settings.auth == "none":
        return []
    unverified = (
        [Finding.warn("token", "--token-file was not verified", "correct the other errors first")]
        if token_file
        else []
    )
    if settings.problem() is not None:
        return unverified  # check_settings reports the problem
    try:
        authority = Authority(settings)
        await authority.load()
    except RevocationsError as error:
        return [Finding.from_error("revocations", error), *unverified]
    except CertificateGrantsError as error:
        return [Finding.from_error("certificate_grants", error), *unverified]
    except KeysError as error:
        return [Finding.from_error("token_keys", error), *unverified]
    found = []
    if authority.verify is not None:
        found.append(Finding.ok("token_keys", f"{settings.jwt_algorithm}: {_key_source(settings)}"))
    if settings.tls_client_grants is not None:
        found.append(Finding.ok("certificate_grants", f"rules in {settings.tls_client_grants} are valid"))
    if settings.jwt_revoked_file is not None:
        found.append(Finding.ok("revocations", f"revocation list {settings.jwt_revoked_file} loaded"))
    if token_file is not None and authority.verify is not None:
        found.append(_check_token(authority.verify, token_file))
    return found


def check_origin(settings: RelaySettings, page: str) -> Finding:
    """Check whether pages of an origin may connect.

    Args:
        settings: settings of the relay.
        page: the origin, as ``validate_origin`` accepts it.
    """
    if settings.origins().is_listed(page):
        return Finding.ok("origin", f"pages of {page} may connect: listed in --allowed-origins")
    scheme, host, port = parse_origin(page) or ("", "", 0)
    own = "https" if settings.tls_cert is not None else "http"
    names = {settings.host} | ({"localhost", "127.0.0.1", "::1"} if _on_loopback(settings.host) else set())
    if (scheme, port) == (own, settings.port) and host in names:
        return Finding.ok("origin", f"pages of {page} may connect: same origin as the relay")
    return Finding.error(
        "origin",
        f"pages of {page} may not connect, unless the relay serves them: "
        f"{_mismatch_reason(settings.allowed_origins, host)}",
        f"add {page} to --allowed-origins",
    )


def validate_origin(text: str) -> str:
    """Return an origin unchanged if it is valid.

    Raises:
        ValueError: the text is not an origin as a browser sends it.
    """
    if parse_origin(text) is None:
        raise ValueError(
            f"{text[:80]!r} is not an origin; use the form https://app.example.com, without a path"
        )
    return text


def _on_loopback(host: str) -> bool:
    return is_loopback(host) or host in ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)


def _mismatch_reason(allowed: str, host: str) -> str:
    for entry in filter(None, (part.strip() for part in allowed.split(","))):
        parsed = parse_entry(entry)
        if parsed is None:
            continue  # the origin of an app; it cannot be a near match of a page
        (_, listed, _), is_wildcard = parsed
        if not is_wildcard and host == listed:
            return f"{entry} is listed, but scheme and port must match too"
        if is_wildcard and host == listed:
            return f"{entry} is listed, which matches its subdomains, but not the domain itself"
        if is_wildcard and host.endswith(f".{listed}"):
            # Origins that match this entry were handled by the caller.
            is_nested = "." in host.removesuffix(f".{listed}")
            return f"{entry} is listed, " + (
                "but * matches a single label" if is_nested else "but scheme and port must match too"
            )
    return "--allowed-origins is empty" if not allowed.strip() else "--allowed-origins has no matching entry"


def _check_token(verify: Callable[[str], Grant], file: Path) -> Finding:
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_TOKEN + 2).decode("utf-8", "replace").strip()
    except OSError as error:
        return Finding.error(
            "token", f"--token-file {file} cannot be read: {error.strerror}", "check the path"
        )
    if not text:
        return Finding.error(
            "token", f"--token-file {file} is empty", "create a token with 'tickertape token mint'"
        )
    try:
        grant = verify(text)
    except TokenError as error:
        return Finding.error(
            "token",
            f"--token-file {file} ({error.reason}): {error.message}",
            "show its claims with 'tickertape token inspect'",
        )
    return Finding.ok("token", f"--token-file {file} is valid: {_describe_grant(grant)}")


def _describe_grant(grant: Grant) -> str:
    parts = [f"{grant.subject} may read {','.join(grant.subjects)}"]
    if grant.deny:
        parts.append(f"except {','.join(grant.deny)}")
    parts.append(f"at level {grant.level} or higher")
    if grant.rate is not None:
        parts.append(f"at {grant.rate:g} log events/s" if grant.rate else "at any rate")
    if grant.connections is not None:
        parts.append(f"on up to {count(grant.connections, 'connection')}")
    assert grant.expires_at is not None
    return f"{', '.join(parts)}, until {format_time(grant.expires_at)}"


def _key_source(settings: RelaySettings) -> str:
    if settings.jwt_jwks_url is not None:
        return "the JWKS contains matching keys"
    if settings.oidc_issuer is not None:
        return f"issuer {settings.oidc_issuer} has matching keys"
    if settings.jwt_key_file is not None:
        return f"the key in {settings.jwt_key_file} is valid"
    return "the key in --jwt-key is valid"
