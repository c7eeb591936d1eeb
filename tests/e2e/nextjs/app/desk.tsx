"use client";

import { useState } from "react";
import { TickertapeProvider, useEvents, useGateways, useLogs, useTickertape } from "tickertape/react";

export function Desk({ url }: { url?: string }) {
  return (
    <TickertapeProvider url={url} mode="complete">
      <main>
        <Connection />
        <Gateways />
        <Logs />
        <Received />
      </main>
    </TickertapeProvider>
  );
}

function Connection() {
  const { state, upstream, client } = useTickertape();
  return (
    <header>
      <h1>Desk</h1>
      <p id="connection" role="status" data-phase={state.phase}>
        <b>{state.phase}</b> <span id="reason">{state.reason}</span>
      </p>
      {state.phase === "reconnecting" && client?.cursor === null && (
        // A browser does not tell a page which of the two applies.
        <p role="alert">Never connected: the relay is unreachable or does not allow this origin.</p>
      )}
      {!upstream.connected && <p role="alert">The relay has no connection to NATS.</p>}
    </header>
  );
}

function Gateways() {
  const gateways = useGateways();
  return (
    <section aria-label="Gateways">
      <h2>Gateways</h2>
      <ul className="tiles">
        {gateways.map(({ subject, event }) => (
          <li key={subject} data-gateway={event.gateway_id} data-status={event.current_status}>
            {event.gateway_id}: {event.current_status}
          </li>
        ))}
      </ul>
      {gateways.length === 0 && <p>No gateways yet.</p>}
    </section>
  );
}

function Logs() {
  const rows = useLogs({ limit: 200 });
  return (
    <section aria-label="Logs">
      <h2>Logs</h2>
      <ol className="lines">
        {rows.map((row) =>
          row.kind === "line" ? (
            <li key={row.key} data-seq={row.seq}>
              {row.event.level} {row.event.source}: {row.event.message}
            </li>
          ) : (
            <li key={row.key} data-gap={row.gap.reason}>
              {row.gap.dropped ?? "unknown number of"} events dropped: {row.gap.reason}
            </li>
          ),
        )}
      </ol>
    </section>
  );
}

/** Show the sequences of all events in the order of arrival, so that a test detects lost and repeated ones. */
function Received() {
  const [seqs, setSeqs] = useState<readonly number[]>([]);
  useEvents(">", ({ seq, snapshot }) => {
    if (!snapshot) setSeqs((previous) => [...previous, seq]);
  });
  return (
    <p>
      Received: <output id="received">{seqs.join(" ")}</output>
    </p>
  );
}
