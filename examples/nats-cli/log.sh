#!/bin/sh
# Publish a log event with the `nats` CLI and jq, from a script or from cron.
#
#     sh log.sh error risk 'margin call' [ID]
#
# ID is the message id: the stream stores one event per id within two minutes. Give one that is the same whenever
# the script repeats the event; without it, an id is made for the attempts of this call.
# NATS_URL, NATS_CREDS and the other variables of the `nats` CLI apply, and NATS_INBOX_PREFIX.
# Guarantee: exit status 0 means stored, once per id; otherwise three attempts have failed.
set -eu
level=$1 source=$2 message=$3
id=${4:-$(date +%s%N)-$$}

case $level in
  debug|info|warn|error|critical) ;;
  *) echo "level '$level': use debug, info, warn, error or critical" >&2; exit 2 ;;
esac

# Each byte of the source other than A-Z, a-z, 0-9, '_' and '-' is written =XX in the subject.
token=$(jq -nr --arg text "$source" '$text | @uri | gsub("[.]"; "%2E") | gsub("~"; "%7E") | gsub("%"; "=")')
event=$(jq -nc --arg level "$level" --arg source "$source" --arg message "$message" \
  '{event_type: "system_log", timestamp: (now | todate), level: $level, source: $source, message: $message}')

# -J waits for the acknowledgement; --no-templates leaves '{{' in a message alone.
for pause in 1 3 0; do
  if nats pub ${NATS_INBOX_PREFIX:+--inbox-prefix=$NATS_INBOX_PREFIX} -q -J --no-templates \
    -H "Nats-Msg-Id:$id" "log.$level.$token" "$event"; then exit 0; fi
  sleep $pause
done
exit 1
