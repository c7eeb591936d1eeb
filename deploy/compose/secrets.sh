#!/bin/sh
# Generates the secrets of compose.yaml: the programs' NATS passwords, the token signing key, and the password of
# Grafana's administrator, in a private folder `secrets` beside it. Existing secrets are kept.
set -eu
cd "$(dirname "$0")/.."
umask 077
mkdir -p secrets
make_secret() {
  if [ ! -s "secrets/$1" ]; then
    value=$(od -An -N 24 -tx1 /dev/urandom | tr -d ' \n')
    # The shell does not notice that `od` fails, and NATS would accept an empty password.
    [ ${#value} -eq 48 ] || { echo "cannot generate secrets/$1: /dev/urandom gave too few bytes" >&2; exit 1; }
    printf %s "$value" > "secrets/$1"
  fi
  # The containers' users must read it; the folder's mode keeps other users out.
  chmod 0444 "secrets/$1"
}
: > secrets/nats.env
for user in operator relay monitor shipper_web1 publisher; do
  make_secret "nats_$user"
  variable=NATS_$(printf %s "$user" | tr '[:lower:]' '[:upper:]')_PASSWORD
  # With inner quotes, because NATS would parse digits as a number.
  printf "%s='\"%s\"'\n" "$variable" "$(cat "secrets/nats_$user")" >> secrets/nats.env
done
make_secret jwt_key
make_secret grafana_admin
