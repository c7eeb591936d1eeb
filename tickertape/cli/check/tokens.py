"""Who may connect: the keys that verify tokens, a token that somebody has, and the page of a site."""

from pathlib import Path

from tickertape.cli.check.finding import Finding
from tickertape.contracts.events import format_time
from tickertape.relay.auth.claims import TokenError
from tickertape.relay.auth.keys import KeysError
from tickertape.relay.auth.origins import parse_origin
from tickertape.relay.auth.revocation_list import RevocationsError
from tickertape.relay.auth.token_service import TokenService
from tickertape.relay.auth.verifier import MAX_TOKEN
from tickertape.relay.core.grants import Grant
from tickertape.relay.settings import RelaySettings
from tickertape.urls import is_loopback


async def tokens(settings: RelaySettings, token_file: Path | None = None) -> list[Finding]:
    """Read the keys as the relay would, and let them judge a token.

    Args:
        settings: of the relay; a JWKS is fetched from its address once.
        token_file: holds the token; it is never shown.
    """
    if settings.auth != "jwt":
        if token_file is None:
            return []
        return [Finding.warn("token", "no token is asked for with --auth none", "give --auth jwt to try one")]
    unjudged = (
        [Finding.warn("token", "--token-file is not judged", "correct the rest first")] if token_file else []
    )
    if settings.problem() is not None:
        return unjudged  # the problem is said of the settings
    try:
        authority = TokenService(settings)
        await authority.load()
    except RevocationsError as error:
        return [Finding.of("revocations", error), *unjudged]
    except KeysError as error:
        return [Finding.of("token_keys", error), *unjudged]
    found = [Finding.ok("token_keys", f"{settings.jwt_algorithm}: {_where(settings)}")]
    if settings.jwt_revoked_file is not None:
        found.append(Finding.ok("revocations", f"revoked tokens are read from {settings.jwt_revoked_file}"))
    if token_file is not None:
        found.append(_token(authority, token_file))
    return found


def origin(settings: RelaySettings, page: str) -> Finding:
    """Tell whether a page would be let in, or why not.

    Args:
        settings: of the relay.
        page: its origin, as ``checked_origin`` takes it.
    """
    if settings.origins().is_listed(page):
        return Finding.ok("origin", f"pages of {page} may connect: --allowed-origins has them")
    scheme, host, port = parse_origin(page) or ("", "", 0)
    own = "https" if settings.tls_cert is not None else "http"
    names = {settings.host} | ({"localhost", "127.0.0.1", "::1"} if _on_loopback(settings.host) else set())
    if (scheme, port) == (own, settings.port) and host in names:
        return Finding.ok("origin", f"pages of {page} may connect: they are the relay's own")
    return Finding.error(
        "origin",
        f"pages of {page} may not connect, unless the relay serves them itself: "
        f"{_why_not(settings.allowed_origins, page)}",
        f"add it to --allowed-origins, as {page}",
    )


def checked_origin(text: str) -> str:
    """An origin as a browser sends it.

    Raises:
        ValueError: it is none.
    """
    if parse_origin(text) is None:
        raise ValueError(f"{text[:80]!r} is no origin; write it as https://app.example.com, without a path")
    return text


def _on_loopback(host: str) -> bool:
    return is_loopback(host) or host in ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)


def _why_not(allowed: str, page: str) -> str:
    wanted = parse_origin(page)
    assert wanted is not None
    for entry in filter(None, (part.strip() for part in allowed.split(","))):
        near = parse_origin(entry.replace("://*.", "://", 1).rstrip("/"))
        assert near is not None
        starred = "://*." in entry
        if not starred and near[1] == wanted[1]:
            return f"{entry} is listed, and scheme and port count too"
        if starred and wanted[1] == near[1]:
            return f"{entry} is listed, which is for names below it, not for itself"
        if starred and wanted[1].endswith(f".{near[1]}"):
            # One that Origins takes did not get here.
            deep = "." in wanted[1].removesuffix(f".{near[1]}")
            return f"{entry} is listed, " + (
                "and its star stands for one label" if deep else "and scheme and port count too"
            )
    return "--allowed-origins is empty" if not allowed.strip() else "--allowed-origins has no such entry"


def _token(authority: TokenService, file: Path) -> Finding:
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_TOKEN + 2).decode("utf-8", "replace").strip()
    except OSError as error:
        return Finding.error(
            "token", f"--token-file {file} cannot be read: {error.strerror}", "check its path"
        )
    if not text:
        return Finding.error(
            "token", f"--token-file {file} is empty", "'tickertape token mint' makes a token"
        )
    try:
        grant = authority.verify(text)
    except TokenError as error:
        return Finding.error(
            "token",
            f"--token-file {file} ({error.reason}): {error.message}",
            "'tickertape token inspect' shows this token",
        )
    return Finding.ok("token", f"--token-file {file} is good: {_granted(grant)}")


def _granted(grant: Grant) -> str:
    parts = [f"{grant.subject} may see {','.join(grant.subjects)}"]
    if grant.deny:
        parts.append(f"without {','.join(grant.deny)}")
    parts.append(f"from level {grant.level} on")
    if grant.rate is not None:
        parts.append(f"at {grant.rate:g} log events/s" if grant.rate else "at any rate")
    if grant.connections is not None:
        parts.append(f"on {grant.connections} connections")
    assert grant.expires_at is not None
    return f"{', '.join(parts)}, until {format_time(grant.expires_at)}"


def _where(settings: RelaySettings) -> str:
    if settings.jwt_jwks_url is not None:
        return "the JWKS answers, with keys that fit"
    if settings.jwt_key_file is not None:
        return f"the key in {settings.jwt_key_file} fits"
    return "the key that is given fits"
