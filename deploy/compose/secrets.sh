#!/bin/sh
# Makes the secrets of compose.yaml, once: passwords of the programs in NATS, the key of the tokens, and Grafana's
# administrator, in the folder `secrets` beside it, which belongs to you alone. What is there is kept.
set -eu
cd "$(dirname "$0")/.."
umask 077
mkdir -p secrets
make_secret() {
  [ -s "secrets/$1" ] || od -An -N 24 -tx1 /dev/urandom | tr -d ' \n' > "secrets/$1"
  # The containers' users read it; the folder keeps everybody else out.
  chmod 0444 "secrets/$1"
}
: > secrets/nats.env
for user in operator relay monitor shipper_web1 publisher; do
  make_secret "nats_$user"
  variable=NATS_$(printf %s "$user" | tr '[:lower:]' '[:upper:]')_PASSWORD
  # In quotes of its own: NATS would read digits as a number.
  printf "%s='\"%s\"'\n" "$variable" "$(cat "secrets/nats_$user")" >> secrets/nats.env
done
make_secret jwt_key
make_secret grafana_admin
