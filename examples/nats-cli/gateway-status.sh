#!/bin/sh
# Publish a status of a gateway with the `nats` CLI and jq, from a script that checks the gateway.
#
#     sh gateway-status.sh ctp ctp.main HEALTHY UNHEALTHY 'no heartbeat' [ID]
#
# The arguments are the type and the id of the gateway, its previous and its current status (UNKNOWN, HEALTHY,
# DEGRADED, UNHEALTHY, RECOVERING, OFF_SESSION, REMOVED), and the reason. ID and the guarantee are as in log.sh.
# Do not publish for a gateway that `tickertape monitor` probes, which would correct the status.
set -eu
type=$1 gateway=$2 previous=$3 current=$4 reason=$5
id=${6:-$(date +%s%N)-$$}

# Each byte of an id other than A-Z, a-z, 0-9, '_' and '-' is written =XX in the subject.
subject=$(jq -nr --arg type "$type" --arg gateway "$gateway" '[$type, $gateway]
  | map(@uri | gsub("[.]"; "%2E") | gsub("~"; "%7E") | gsub("%"; "=")) | "gateway.status." + join(".")')
event=$(jq -nc --arg type "$type" --arg gateway "$gateway" --arg previous "$previous" --arg current "$current" \
  --arg reason "$reason" '{event_type: "gateway_status_change", timestamp: (now | todate), gateway_type: $type,
  gateway_id: $gateway, previous_status: $previous, current_status: $current, metadata: {reason: $reason}}')

for pause in 1 3 0; do
  if nats pub ${NATS_INBOX_PREFIX:+--inbox-prefix=$NATS_INBOX_PREFIX} -q -J --no-templates \
    -H "Nats-Msg-Id:$id" "$subject" "$event"; then exit 0; fi
  sleep $pause
done
exit 1
