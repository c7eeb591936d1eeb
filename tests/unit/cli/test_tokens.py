"""``tickertape token``: a relay accepts the tokens that it creates."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from tickertape.relay.auth import signing as minting
from tickertape.relay.auth.settings import Algorithm

from tests.support.clients.forge import (
    ALGORITHMS,
    NOW,
    SECRET,
    claims,
    private_key,
    private_pem,
    public_pem,
    token,
)
from tickertape.cli.main import main
from tickertape.cli.tokens import TokenCommandSettings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TokenCommandSettings.model_fields:
        monkeypatch.delenv(f"TICKERTAPE_{name.upper()}", raising=False)
    monkeypatch.setattr("time.time", lambda: NOW)
    monkeypatch.setattr(minting, "RSA_BITS", 2048)


class Ran:
    """Output and exit code of a run."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def answer(self) -> dict[str, Any]:
        """Output of ``inspect``."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


class Shell:
    """Runner of the command with a given standard input."""

    def __init__(self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capsys = capsys

    def __call__(self, *arguments: str, stdin: str = "") -> Ran:
        self._patch.setattr("sys.stdin", io.StringIO(stdin))
        self._capsys.readouterr()
        code = main(["token", *arguments])
        return Ran(code, *self._capsys.readouterr())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return a runner of the command."""
    return Shell(monkeypatch, capsys)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_and_a_token_from_start_to_end(algorithm: Algorithm, run: Shell, tmp_path: Path) -> None:
    """A token created with a generated key is accepted with the public key."""
    private, public = tmp_path / "private", tmp_path / "public"
    made = run("keygen", "--jwt-algorithm", algorithm, "--public-file", str(public))
    assert made.code == 0
    private.write_text(made.out)
    half = private if algorithm == "HS256" else public
    assert public.exists() == (algorithm != "HS256")
    minted = run(
        *("mint", "--jwt-algorithm", algorithm, "--key-file", str(private), "--subject", "alice"),
        *("--subjects", "gateway.>, log.>", "--deny", "log.debug.x", "--level", "INFO", "--rate", "200"),
        *("--connections", "5", "--expires", "2h", "--issuer", "me", "--audience", "relay", "--id", "7"),
        *("--kid", "k1", "--not-before", "0s"),
    )
    assert (minted.code, minted.err) == (0, "")
    assert minted.out.count("\n") == 1
    seen = run(
        *("inspect", "--jwt-algorithm", algorithm, "--jwt-key-file", str(half)),
        *("--jwt-issuer", "me", "--jwt-audience", "relay"),
        stdin=minted.out,
    )
    assert seen.code == 0
    assert seen.answer == {
        "header": {"alg": algorithm, "kid": "k1", "typ": "JWT"},
        "claims": {
            "iss": "me",
            "aud": "relay",
            "sub": "alice",
            "jti": "7",
            "iat": NOW,
            "nbf": NOW,
            "exp": NOW + 7200,
            "tickertape": {
                "subjects": ["gateway.>", "log.>"],
                "deny": ["log.debug.x"],
                "level": "INFO",
                "rate": 200.0,
                "connections": 5,
            },
        },
        "times": {
            "iat": "2027-01-15T08:00:00.000Z (0:00:00 ago)",
            "nbf": "2027-01-15T08:00:00.000Z (0:00:00 ago)",
            "exp": "2027-01-15T10:00:00.000Z (in 2:00:00)",
        },
        "grant": {
            "subject": "alice",
            "subjects": ["gateway.>", "log.>"],
            "deny": ["log.debug.x"],
            "level": "INFO",
            "rate": 200.0,
            "connections": 5,
        },
        "verified": True,
        "result": "verified",
    }
    assert minted.out.strip().split(".")[2] not in seen.out


def test_a_secret_of_any_bytes_signs_and_verifies(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret in the environment need not be UTF-8."""
    monkeypatch.setenv("TICKERTAPE_JWT_ALGORITHM", "HS256")
    monkeypatch.setenv("TICKERTAPE_JWT_KEY", os.fsdecode(b"\xff\x80" * 32))
    minted = run("mint", "--subjects", ">")
    assert (minted.code, minted.err) == (0, "")
    assert run("inspect", stdin=minted.out).answer["verified"] is True


def test_bytes_that_are_no_text_are_no_token(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input that is not UTF-8 is an error of one line."""
    monkeypatch.setattr(io, "StringIO", lambda _: io.TextIOWrapper(io.BytesIO(b"\xff.\xff.\xff"), "utf-8"))
    seen = run("inspect")
    assert (seen.code, seen.err.count("\n")) == (1, 1)
    assert "not UTF-8" in seen.err


def test_the_least_that_is_needed(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, issuer and audience come from the environment; the default lifetime is an hour; exp is an
    integer.
    """
    for name, value in (
        ("ALGORITHM", "HS256"),
        ("KEY", SECRET.decode()),
        ("ISSUER", "me"),
        ("AUDIENCE", "relay"),
    ):
        monkeypatch.setenv(f"TICKERTAPE_JWT_{name}", value)
    monkeypatch.setattr("time.time", lambda: NOW + 0.7)
    minted = run("mint", "--subjects", ">")
    assert minted.code == 0
    seen = run("inspect", minted.out.strip())
    assert seen.code == 0
    assert seen.answer["claims"] == {
        "iss": "me",
        "aud": "relay",
        "iat": NOW,
        "exp": NOW + 3600,
        "tickertape": {"subjects": [">"]},
    }
    assert '"exp": 1800003600\n' in seen.out.replace(",", "")
    assert seen.answer["grant"]["subject"].startswith("token:")


def test_a_secret_file_of_the_relay_mints_too(run: Shell, tmp_path: Path) -> None:
    """For HS256 the relay's secret file creates tokens."""
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    options = ("--jwt-algorithm", "HS256", "--jwt-key-file", str(tmp_path / "secret"))
    minted = run("mint", "--subjects", "log.>", "--not-before", "2027-01-15T09:00:00Z", *options)
    seen = run("inspect", "-", *options, stdin=minted.out)
    assert seen.code == 1
    assert seen.answer["claims"]["nbf"] == NOW + 3600
    assert seen.answer["result"].startswith("not_yet_valid: ")


def test_a_grant_is_never_taken_from_the_environment(run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of other commands do not affect a grant, and its own options have none."""
    monkeypatch.setenv("TICKERTAPE_SERVE_SUBJECTS", ">")
    monkeypatch.setenv("TICKERTAPE_TAIL_LEVEL", "INFO")
    options = ("--jwt-algorithm", "HS256", "--jwt-key", SECRET.decode())
    assert run("mint", *options).code == 2
    seen = run("inspect", run("mint", "--subjects", "log.>", *options).out.strip())
    assert seen.answer["claims"] == {"iat": NOW, "exp": NOW + 3600, "tickertape": {"subjects": ["log.>"]}}
    monkeypatch.setenv("TICKERTAPE_TOKEN_SUBJECTS", ">")
    assert run("mint", *options).code == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "required"),
        (["steal"], "'mint', 'inspect' or 'keygen'"),
        (["mint", "--subjects", ">"], "mint requires --jwt-algorithm: HS256"),
        (["mint", "--jwt-algorithm", "HS256"], "mint requires --subjects"),
        (["mint", "--jwt-algorithm", "HS256", "--subjects", ">"], "set --key-file or TICKERTAPE_JWT_KEY"),
        (["mint", "--subjects", "log.>.x"], "--subjects: 'log.>.x' has '>' before its end"),
        (["mint", "--subjects", "log.>,"], "--subjects: '' is empty"),
        (["mint", "--deny", "a*"], "--deny: "),
        (["mint", "--level", "LOUD"], "--level: "),
        (["mint", "--rate", "-1"], "--rate"),
        (["mint", "--connections", "0"], "--connections: "),
        (["mint", "--expires", "0s"], "--expires: 0s is not between 1s and 366d"),
        (["mint", "--expires", "367d"], "--expires: 367d is not between 1s and 366d"),
        (["mint", "--expires", "1h30m"], "--expires: '1h30m' is not a duration"),
        (["mint", "--expires", "99999999999s"], "is not a duration"),
        (["mint", "--not-before", "tomorrow"], "--not-before: 'tomorrow' is not an RFC 3339 time"),
        (["keygen"], "keygen requires --jwt-algorithm"),
        (["keygen", "--jwt-algorithm", "EdDSA"], "keygen requires --public-file"),
    ],
)
def test_mistakes_are_one_line(run: Shell, arguments: list[str], text: str) -> None:
    """A mistake is one line with the exit code for usage errors."""
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert text in ran.err
    assert ran.err.count("\n") == 1


def test_keys_that_cannot_sign(run: Shell, tmp_path: Path) -> None:
    """A public, encrypted, unsuitable or too short key cannot sign, and neither can garbage."""
    locked = private_key("ES256").private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
    )
    rubbish = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    for algorithm, data, text in (
        ("ES256", public_pem("ES256"), "no private key as PEM; set --key-file to the private key"),
        ("ES256", locked, "is encrypted"),
        ("ES256", rubbish, "cannot parse"),
        ("ES256", private_pem(private_key("RS256")), "ES256 requires a P-256 key"),
        ("ES256", private_pem(ec.generate_private_key(ec.SECP384R1())), "ES256 requires P-256"),
        ("HS256", private_pem(private_key("RS256")), "not an HS256 secret"),
        ("HS256", b"short", "has 5 bytes"),
    ):
        (tmp_path / "key").write_bytes(data)
        ran = run(
            *("mint", "--subjects", ">", "--jwt-algorithm", algorithm, "--key-file", str(tmp_path / "key"))
        )
        assert (ran.code, ran.out) == (1, "")
        assert text in ran.err
        assert ran.err.count("\n") == 1
        assert data.decode().splitlines()[-1] not in ran.err.replace("'", "") or data == b"short"
    missing = run(
        *("mint", "--subjects", ">", "--jwt-algorithm", "HS256", "--key-file", str(tmp_path / "none"))
    )
    assert (missing.code, missing.out) == (1, "")
    assert "No such file" in missing.err


def test_a_token_that_a_relay_would_reject_is_not_created(run: Shell) -> None:
    """A token that a relay would reject is not created: an invalid grant, or one that is too large."""
    options = ("--jwt-algorithm", "HS256", "--jwt-key", SECRET.decode())
    many = run("mint", "--subjects", ",".join(f"log.*.s{number}" for number in range(65)), *options)
    assert (many.code, many.out) == (1, "")
    assert "65 patterns; at most 64" in many.err
    large = run("mint", "--subjects", ">", "--audience", "x" * 13_000, *options)
    assert (large.code, large.out) == (1, "")
    assert "the limit is 16384" in large.err
    fast = run("mint", "--subjects", ">", "--rate", "1e9", *options)
    assert (fast.code, fast.out) == (1, "")


def test_a_public_key_is_not_written_over(run: Shell, tmp_path: Path) -> None:
    """An existing public key is not overwritten, since tokens of its private key would become invalid."""
    path = tmp_path / "public"
    path.write_text("precious")
    ran = run("keygen", "--jwt-algorithm", "EdDSA", "--public-file", str(path))
    assert (ran.code, ran.out) == (1, "")
    assert "already exists" in ran.err
    assert path.read_text() == "precious"


def test_inspecting_without_a_key_verifies_nothing(run: Shell) -> None:
    """Without a key the token is shown but not verified, and the output says what is needed."""
    seen = run("inspect", token())
    assert seen.code == 1
    assert seen.answer["verified"] is False
    assert seen.answer["result"].startswith("not verified: jwt_algorithm: ")
    assert seen.answer["grant"]["subjects"] == ["log.>"]
    assert token().split(".")[2] not in seen.out


@pytest.mark.parametrize(
    ("given", "result"),
    [
        (token(values=claims(exp=NOW - 90_000)), "expired: "),
        (token(values=claims(exp="soon", iat=1e300)), "claim: "),
        (token(values=claims(tickertape=None, sub=5)), "claim: "),
        (token(values=claims(tickertape=None)), "empty_grant: "),
        (token(alg="none"), "algorithm: "),
        (token(name="other"), "signature: "),
        (token(values=claims(jti="7")), "revoked: "),
    ],
)
def test_a_token_that_is_not_good_has_a_reason(run: Shell, tmp_path: Path, given: str, result: str) -> None:
    """An invalid token is reported with the reason under which a relay counts it."""
    (tmp_path / "revoked").write_text("7\n")
    options = ("--jwt-algorithm", "HS256", "--jwt-key", SECRET.decode())
    seen = run("inspect", given, "--jwt-revoked-file", str(tmp_path / "revoked"), *options)
    assert seen.code == 1
    assert seen.answer["result"].startswith(result)
    assert SECRET.decode() not in seen.out
    if result == "expired: ":
        assert seen.answer["times"]["exp"].endswith("(1 day, 1:00:00 ago)")
    if "exp" in seen.answer["claims"] and seen.answer["claims"]["exp"] == "soon":
        assert "not a time in UNIX seconds" in seen.answer["times"]["exp"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("", "three parts"),
        ("a.b", "three parts"),
        ("a.b.c.d.e", "has 5"),
        ("!!!!.e30.x", "header is not base64url"),
        ("ü.e30.x", "header is not base64url"),
        ("e30.W10.x", "claims is not a JSON object"),
        ("AAAA.e30.x", "header is not valid JSON"),
        ("x" * 30_000 + ".e30.x", "three parts"),
    ],
)
def test_input_that_is_no_token(run: Shell, given: str, text: str) -> None:
    """Input that is no token is one line that does not repeat it."""
    ran = run("inspect", stdin=given)
    assert (ran.code, ran.out) == (1, "")
    assert text in ran.err
    assert ran.err.count("\n") == 1


def test_what_the_relay_would_verify_with_may_be_wrong(run: Shell, tmp_path: Path) -> None:
    """An invalid key, URL or revocation file is one line."""
    for arguments, text in (
        (("--jwt-key", "short"), "has 5 bytes"),
        (("--jwt-key", SECRET.decode(), "--jwt-revoked-file", str(tmp_path / "none")), "No such file"),
    ):
        ran = run("inspect", token(), "--jwt-algorithm", "HS256", *arguments)
        assert (ran.code, ran.out) == (1, "")
        assert text in ran.err
    address = "http://127.0.0.1:1/jwks"
    ran = run("inspect", token("EdDSA"), "--jwt-algorithm", "EdDSA", "--jwt-jwks-url", address)
    assert (ran.code, ran.out) == (1, "")
    assert "cannot fetch" in ran.err


@pytest.mark.parametrize(
    "option", ["deny", "subject", "issuer", "audience", "id", "not-before", "jwt-audience"]
)
def test_an_empty_restriction_mints_nothing(run: Shell, option: str) -> None:
    """An option whose shell variable is unset is an error, since the token would grant more than intended."""
    secret = SECRET.decode()
    ran = run("mint", "--jwt-algorithm", "HS256", "--jwt-key", secret, "--subjects", ">", f"--{option}", "")
    assert (ran.out, ran.err.count("empty, which would drop a restriction")) == ("", 1)
