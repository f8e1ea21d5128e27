#!/bin/sh
# Makes what deploy/ needs and no repository may hold, in deploy/secrets: an authority, certificates, passwords.
#
#   sh deploy/secrets.sh                    the authority, the broker's certificate, passwords; what is there stays
#   sh deploy/secrets.sh device roof-7      a certificate for a device; its name is the device id
#
# SECRETS names another folder, HOST the name by which devices reach the broker.
# Needs openssl and mosquitto_passwd.
set -eu
umask 077
secrets=${SECRETS:-$(dirname "$0")/secrets}
host=${HOST:-localhost}
mkdir -p "$secrets"
cd "$secrets"

new_key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"

certificate() { # FILE COMMON-NAME USE [ALTERNATIVE-NAMES]
    openssl req -new $new_key -keyout "$1.key" -subj "/CN=$2" -out "$1.csr" 2>/dev/null
    printf 'basicConstraints = CA:FALSE\nextendedKeyUsage = %s\n%s\n' "$3" "${4:-}" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    rm "$1.csr" "$1.ext"
    chmod 644 "$1.pem"
}

if [ "${1:-}" = device ]; then
    case ${2:?"usage: secrets.sh device DEVICE-ID"} in
        *[!A-Za-z0-9._:-]*) echo "a device id here has letters, digits and . _ : - only: $2" >&2; exit 2 ;;
    esac
    mkdir -p devices
    certificate "devices/$2" "$2" clientAuth
    echo "$secrets/devices/$2.pem"
    exit
fi

if [ ! -f ca.pem ]; then
    openssl req -x509 $new_key -keyout ca.key -subj "/CN=headrace devices" -days 3650 -out ca.pem \
        -addext "keyUsage = critical, keyCertSign, cRLSign" 2>/dev/null
fi
[ -f server.pem ] || certificate server "$host" serverAuth "subjectAltName = DNS:$host, DNS:localhost, IP:127.0.0.1"
for name in bridge commands database data; do
    [ -f "$name-password" ] || openssl rand -hex 24 > "$name-password"
done
if [ ! -f passwords ]; then
    mosquitto_passwd -c -b passwords headrace "$(cat bridge-password)"
    mosquitto_passwd -b passwords headrace-commands "$(cat commands-password)"
fi
[ -f database-url ] || echo "postgresql://headrace_data:$(cat data-password)@timescaledb/headrace" > database-url
[ -f migration-url ] || echo "postgresql://headrace:$(cat database-password)@timescaledb/headrace" > migration-url
# Read by the users of the containers, who are not this one.
chmod 755 .
chmod 644 ca.pem server.key passwords bridge-password database-password data-password database-url migration-url
