"""Settings of the probe ``fix``, and its run.

A venue may ban an account after a few failed logons. Therefore their number per hour is limited; at the limit
the gateway is not probed and keeps its status.

Invariant: a probe never changes a session that something else uses: it resets nothing unless told to, and
adopts no number unless told to. It needs a comp id of its own.
"""

import asyncio
import contextlib
import math
import time
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, PlainValidator, model_validator
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.context import HOUR, HourlyLimits, ProbeContext
from tickertape.producers.monitor.probes.fix.messages import FixError
from tickertape.producers.monitor.probes.fix.sequences import Numbers, Sequences, SessionInUse
from tickertape.producers.monitor.probes.fix.session import Identity, SequenceTooLow, Session
from tickertape.producers.monitor.probes.options.secrets import (
    SecretFile,
    Variable,
    check_one_source,
    read_line_secret,
)
from tickertape.producers.monitor.probes.options.tls import OptionalTls
from tickertape.producers.monitor.probes.result import (
    MAX_ERROR_LENGTH,
    CannotProbe,
    answered,
    failed,
    redact,
)
from tickertape.producers.monitor.probes.settings import AddressProbe
from tickertape.producers.monitor.types import Printable, check_printable

from tickertape.net.http_client import CHUNK, close
from tickertape.net.outgoing import open_connection

_HEARTBEAT_SECONDS: Final = 30
"""HeartBtInt in the logon, in seconds."""

_FIXT: Final = "FIXT.1.1"
_WITHOUT_PASSWORD: Final = ("FIX.4.0", "FIX.4.1", "FIX.4.2")
"""Versions whose logon has no Username (553) and Password (554)."""

_APPLICATION_VERSIONS: Final = {
    "FIX.4.0": "2", "FIX.4.1": "3", "FIX.4.2": "4", "FIX.4.3": "5", "FIX.4.4": "6",
    "FIX.5.0": "7", "FIX.5.0SP1": "8", "FIX.5.0SP2": "9",
}  # fmt: skip
"""Values of DefaultApplVerID (1137)."""

_OWN_TAGS: Final = frozenset({8, 9, 10, 34, 35, 43, 49, 50, 52, 56, 57, 98, 108, 112, 122, 141, 1137})
"""Tags that have a setting, or that the session layer needs."""

_SECRET_TAGS: Final = frozenset({96, 554, 925, 1402, 1404})
"""Tags of passwords: RawData, Password, NewPassword and their encrypted forms."""


def _check_value(value: object) -> str:
    # YAML reads a value such as 30 as a number.
    text = str(value) if type(value) is int else value
    if not isinstance(text, str):
        raise ValueError("must be text; put it in quotes")
    return check_printable(text)


def _check_sender(value: object) -> str | dict[str, str]:
    if not isinstance(value, dict):
        return _check_value(value)
    senders = {str(monitor): _check_value(sender) for monitor, sender in value.items()}
    if not senders or len(set(senders.values())) < len(senders):
        raise ValueError("needs a different comp id for each monitor; add them as {monitor id: comp id}")
    return senders


def _check_version(value: str) -> str:
    if value not in _APPLICATION_VERSIONS:
        raise ValueError(f"unknown version {value!r}; use one of {', '.join(_APPLICATION_VERSIONS)}")
    return value


Value = Annotated[str, PlainValidator(_check_value)]


class FixProbe(OptionalTls, AddressProbe):
    """FIX session that logs on, requests a heartbeat and logs out, at most ``max_logons_per_hour`` times."""

    kind: Literal["fix"]
    sender_comp_id: Annotated[str | dict[str, str], PlainValidator(_check_sender)]
    """Comp id that nothing else uses; for several monitors, a mapping with the one of each monitor's id."""
    target_comp_id: Printable
    sender_sub_id: Printable | None = None
    target_sub_id: Printable | None = None
    begin_string: Literal["FIX.4.0", "FIX.4.1", "FIX.4.2", "FIX.4.3", "FIX.4.4", "FIXT.1.1"] = "FIX.4.4"
    default_appl_ver_id: Annotated[str, AfterValidator(_check_version)] | None = None
    """Version of the application layer with FIXT.1.1; FIX.5.0SP2 by default."""
    username: Printable | None = None
    password_env: Variable | None = None
    """Name of the environment variable that contains the password."""
    password_file: SecretFile | None = None
    logon_fields: dict[Annotated[int, Field(ge=1)], Value] = Field(default={}, repr=False)
    """Further fields of the logon, by tag."""
    reset: Annotated[bool, Field(strict=True)] = False
    """Reset the sequence numbers of both sides with each logon (ResetSeqNumFlag)."""
    adopt: Annotated[bool, Field(strict=True)] = False
    """Continue from the number that the peer expects, if the own one is lower because it was lost."""
    max_logons_per_hour: Annotated[int, Field(ge=1, le=3600, strict=True)] = 4
    """Limit of logons over all monitors, since venues ban accounts for failed ones."""

    @model_validator(mode="after")
    def _check_version_and_options(self) -> "FixProbe":
        check_one_source(self, ("password_env", "password_file"))
        has_password = (self.username, self.password_env, self.password_file) != (None, None, None)
        if has_password and self.begin_string in _WITHOUT_PASSWORD:
            raise ValueError(
                f"{self.begin_string} has no username and password; put what the venue requires into "
                "'logon_fields'"
            )
        if self.reset and self.adopt:
            raise ValueError("'reset' and 'adopt' exclude each other; remove one")
        if self.reset and self.begin_string == "FIX.4.0":
            raise ValueError("FIX.4.0 has no ResetSeqNumFlag; remove 'reset'")
        if self.default_appl_ver_id is not None and self.begin_string != _FIXT:
            raise ValueError(f"'default_appl_ver_id' is for {_FIXT}; remove it")
        if own := sorted(self.logon_fields.keys() & _OWN_TAGS):
            raise ValueError(f"'logon_fields' contains tag {own[0]}, which the probe sets itself; remove it")
        if has_password and (twice := sorted(self.logon_fields.keys() & {553, 554})):
            raise ValueError(f"'logon_fields' contains tag {twice[0]}, which has a setting; remove one")
        return self

    @property
    def warning(self) -> str | None:
        if self.reset:
            return "'reset' resets the peer's sequence numbers too; remove it unless the peer requires it"
        if self.adopt:
            return "'adopt' uses up numbers of any other program with this comp id; remove it after one logon"
        return super().warning

    def schedule_warning(self, interval: float) -> str | None:
        if interval * self.max_logons_per_hour >= HOUR:
            return None
        return (
            f"{self.max_logons_per_hour} logons per hour are used up after "
            f"{interval * self.max_logons_per_hour:g} s with this interval, and the status is kept until the "
            f"hour is over; set 'interval: {math.ceil(HOUR / self.max_logons_per_hour / 60)}m' for this probe"
        )

    @property
    def exclusive(self) -> frozenset[str]:
        host, port = self.endpoint
        senders = self.sender_comp_id
        return frozenset(
            f"{sender} to {self.target_comp_id} at {host.lower()}:{port}"
            for sender in ([senders] if isinstance(senders, str) else senders.values())
        )

    async def probe(self, time_limit: float, context: ProbeContext) -> Result | None:
        sender = self.sender_comp_id
        if not isinstance(sender, str):
            if context.monitor not in sender:
                raise CannotProbe(
                    f"'sender_comp_id' has no entry for this monitor, {context.monitor!r}", "add its comp id"
                )
            sender = sender[context.monitor]
        subs = (self.sender_sub_id or "", self.target_sub_id or "")
        identity = Identity(self.begin_string, sender, self.target_comp_id, *subs)
        session = f"{sender}:{self.target_comp_id}@{self.address}"
        try:
            async with context.state(Sequences).use(session, context.folder) as numbers:
                return await self._run(identity, numbers, time_limit, context.limits)
        except SessionInUse:
            return None

    async def _run(
        self, identity: Identity, numbers: Numbers, time_limit: float, limits: HourlyLimits
    ) -> Result | None:
        """Run the probe; if a number is adopted, a second time."""
        host, port = self.endpoint
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        fields = self._logon_fields()
        deadline = 0.0  # of all logons together, without the wait for the limit
        adopt = self.adopt
        while True:
            # Counted before connecting: the venue may count a logon that fails or times out here.
            account = (self.address, identity.sender)
            if not await limits.take("logon", account, self.max_logons_per_hour):
                return None
            started = clock()
            deadline = deadline or asyncio.get_running_loop().time() + time_limit
            if self.reset:
                numbers.next = 1
            writer: asyncio.StreamWriter | None = None
            try:
                async with asyncio.timeout_at(deadline):
                    reader, writer = await open_connection(
                        host, port, tls=self.first_context, server_name=self.server_name, limit=CHUNK
                    )
                    session = Session(identity, numbers, reader, writer)
                    await session.log_on(fields)
                    latency = clock() - started
                await session.log_out()
                return answered(latency, self.degraded_above)
            except SequenceTooLow as error:
                numbers.next = error.sent  # the peer has not counted it
                if not adopt or error.expected is None:
                    return Result(Outcome.UNKNOWN, _describe_conflict(error)[:MAX_ERROR_LENGTH])
                adopt, numbers.next = False, error.expected
                # Until an engine has closed this connection, it may reject another one of the session.
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout_at(deadline):
                        while await reader.read(CHUNK):
                            pass
            except FixError as error:
                # A venue may quote the logon that it rejects.
                secrets = {f"secret {tag}": value for tag, value in fields if tag in _SECRET_TAGS}
                return failed(redact(str(error), secrets))
            finally:
                if writer is not None:
                    await close(writer)

    def _logon_fields(self) -> list[tuple[int, str]]:
        """Return the body of the logon.

        Raises:
            CannotProbe: the password cannot be read.
        """
        # No encryption, and the heartbeat interval.
        fields = [(98, "0"), (108, str(_HEARTBEAT_SECONDS))]
        if self.reset:
            fields.append((141, "Y"))
        if self.username is not None:
            fields.append((553, self.username))
        password = read_line_secret(self.password_env, self.password_file, ascii_only=False)
        if password is not None:
            fields.append((554, password))
        if self.begin_string == _FIXT:
            fields.append((1137, _APPLICATION_VERSIONS[self.default_appl_ver_id or "FIX.5.0SP2"]))
        return fields + list(self.logon_fields.items())


def _describe_conflict(error: SequenceTooLow) -> str:
    number = "a higher sequence number" if error.expected is None else f"sequence number {error.expected}"
    return (
        f"peer expects {number}, not {error.sent}: another program uses this comp id, or "
        "the own numbers were lost; use a comp id of its own, or set 'adopt: true'"
    )
