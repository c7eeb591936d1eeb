"""Secrets in command lines, statements of SQL and dialogues of protocols, where no name is before them."""

import re
from base64 import b64decode
from binascii import Error
from typing import Final

_OPTION: Final = rb"[^\n|;&]*?[ \t\"',]"
# Flags that take a password, with the commands that have them.
_FLAGS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (rb"curl|wget|httpie", rb"(?:-[A-Za-z]*[uU]|--(?:proxy-)?user|--auth)[ \t=\"',]*[^\s:\"',]+:"),
    (rb"mysql(?:dump|admin|import|check|show|sh|pump|binlog)?|mariadb(?:-[a-z]+)?|mycli|mytop", rb"-p"),
    (rb"sshpass", rb"-p[ \t\"',]*"),
    (rb"redis-cli|valkey-cli|redis-benchmark", rb"(?:-a|--pass)[ \t\"',]+"),
    (rb"mongo|mongosh|mongodump|mongorestore|mongoexport|mongoimport|cqlsh|influx|arangosh|clickhouse-client",
     rb"(?:-p|-pw)[ \t\"',]+"),
    (rb"(?:docker|podman|buildah|skopeo|helm|oc|az|nerdctl|crane|oras|heroku)[ \t]+(?:[a-z]+[ \t]+)?login",
     rb"-p[ \t\"',]+"),
    (rb"ldap(?:search|add|modify|delete|passwd|whoami|compare)|kadmin", rb"-(?:w|y)[ \t\"',]+"),
    (rb"mosquitto_(?:pub|sub|rr)|sqlcmd|bcp|isql|tsql|osql|ipmitool|unzip|zip|mqttx", rb"-P[ \t\"',]*"),
    (rb"7za?|rar|unrar", rb"-p"),
    (rb"plink|putty|pscp|psftp|winscp", rb"-pw[ \t\"',]+"),
    (rb"smbclient|smbget|rpcclient|mount\.cifs|impacket-[a-z]+", rb"-U[ \t\"',]*[^\s%\"']+%"),
    (rb"openssl|keytool|easyrsa", rb"(?:-pass(?:in|out)?[ \t\"',]+)?pass:"),
    (rb"rabbitmqctl", rb"(?:add_user|change_password|authenticate_user)[ \t]+\S+[ \t]+"),
    (rb"htpasswd", rb"-[a-zA-Z]*b[a-zA-Z]*[ \t]+\S+[ \t]+\S+[ \t]+"),
    (rb"net[ \t]+user", rb"[A-Za-z][\w.-]*[ \t]+"),
    (rb"sqlplus|sqlldr|expdp|impdp", rb"[\w$#]+/"),
    (rb"xfreerdp|rdesktop", rb"(?:/p:|-p[ \t]+)"),
    (rb"ssh-keygen", rb"-[NP][ \t\"',]*"),
    (rb"https?|xhs?", rb"(?:-a|--auth)[ \t\"',]+[^\s:\"',]+:"),
    (rb"openssl[ \t]+enc", rb"-[kK][ \t]+"),
    (rb"snmp(?:walk|get|getnext|bulkwalk|bulkget|set|table|trap|inform|status|translate|delta|df)",
     rb"-c[ \t\"',]*"),
    (rb"net[ \t]+use", rb"(?:[A-Za-z]:|\*)?[ \t]*\\+[\w.$-]+\\+[^\s\"']+[ \t]+"),
    (rb"nmcli", rb"(?:wifi-sec\.psk|802-1x\.password)[ \t]+"),
)  # fmt: skip
_VALUE: Final = rb"[^\s\"'\\,|;&:=)>][^\s\"'\\|]*"

_HEADS: Final = b"|".join(
    (
        *(rb"(?:^|[^\w.-])(?:%s)%s(?:%s)" % (command, _OPTION, flag) for command, flag in _FLAGS),
        # SQL.
        rb"(?i:\bidentified[ \t]+(?:with[ \t]+\S+[ \t]+)?(?:by|as)[ \t]+(?:password[ \t]+)?)['\"]",
        rb"(?i:\b(?:user|to|role)[ \t]+\S+[ \t]+identified[ \t]+by[ \t]+)",
        rb"(?i:\bpass(?:word|phrase|code)[ \t]*\(?[ \t]*)['\"]",
        rb"(?i:\bset[ \t]+password[ \t]+(?:for[ \t]+\S+[ \t]*)?=[ \t]*(?:password[ \t]*\()?)['\"]",
        rb"(?i:\bsp_addlogin[ \t]+N?'[^'\n]*'[ \t]*,[ \t]*N?)['\"]",
        # SNMPv3, and network devices.
        rb"-[ax][ \t]+(?:MD5|SHA|DES|3DES|AES)[\w-]*[ \t]+-[AX][ \t]+",
        rb"\b(?:snmp-server|set[ \t]+snmp)[ \t]+community[ \t]+",
        rb"\bsnmp-server[ \t]+user[ \t][^\n]*?[ \t]auth[ \t]+\w+[ \t]+",
        rb"\bpriv[ \t]+(?:3?des|aes)(?:[ \t]+(?:128|192|256))?[ \t]+",
        rb"\b(?:radius|tacacs)(?:-server)?[ \t][^\n]*?\bkey[ \t]+(?:[067][ \t]+)?",
        rb"\bneighbor[ \t]+\S+[ \t]+password[ \t]+(?:[057][ \t]+)?",
        # kdb+: host, port, user and password.
        rb"(?:^|[\s`\"'(]|\\[nrt]):(?:[A-Za-z][\w.-]*|[0-9.]{7,15})?:[0-9]{2,5}:[A-Za-z][\w.-]*:",
        rb"(?i:jdbc:oracle:thin:[\w$]+/)",
        # FTP, POP3 and IRC; SMTP and IMAP; Redis; .netrc.
        rb"(?:^|[<>:/\"'\]-] ?|\bcommand )PASS ",
        rb"(?i:\bAUTH[ \t]+(?:PLAIN|LOGIN|CRAM-MD5|XOAUTH2|AMQPLAIN)[ \t]+)",
        rb"(?i:[\"']auth[\"'][ \t]+[\"'](?:[^\"'\s]+[\"'][ \t]+[\"'])?)",
        rb"(?i:\b(?:requirepass|masterauth)[\"']?[ \t]+[\"']?)",
        rb"\blogin[ \t]+\S+[ \t]+password[ \t]+",
        # Secrets that a command reads from a pipe.
        rb"\becho[ \t]+(?:-n[ \t]+)?",
    )
)
_READS: Final = rb"[ \t]*\|[ \t]*(?:sudo|passwd|chpasswd|docker|podman|su)\b"
COMMAND: Final = rb"(?m)((?:%s)\\*[\"']?)(%s)(\\*[\"']?%s)?" % (_HEADS, _VALUE, _READS)
"""Groups: everything up to the secret, the secret, and the command that reads it from a pipe."""

SUSPECT: Final = (
    rb"(?m:(?:^|[^\w.-]|\\[nrt])(?:%s))"
    % b"|".join(rb"(?:%s)%s(?:%s)" % (command, _OPTION, flag) for command, flag in _FLAGS)
    + rb"|(?i:\bidentified[ \t]+(?:with|by|as)|pass(?:word|phrase|code)[ \t]*\(?[ \t]*\\*['\"])"
    rb"|(?i:jdbc:oracle:thin:)"
    rb"|(?i:\bset[ \t]+password[ \t]|\bsp_addlogin[ \t])|-[ax][ \t]+(?:MD5|SHA|DES|3DES|AES)[\w-]*[ \t]+-[AX]"
    rb"|snmp(?:-server)?[ \t]+(?:community|user)|\bpriv[ \t]+(?:3?des|aes)"
    rb"|(?:radius|tacacs)(?:-server)?[ \t][^\n]*key|neighbor[ \t]+\S+[ \t]+password"
    rb"|(?m:(?:^|[\s`\"'(]|\\[nrt]):[\w.-]*:[0-9]{2,5}:[A-Za-z][\w.-]*:)"
    rb"|(?m:(?:^|[<>:/\"'\]-] ?|command |\\[nrt])PASS )|(?i:\bauth[ \t]+(?:plain|login|cram-md5"
    rb"|xoauth2|amqplain))"
    rb"|(?i:auth\\*[\"'][ \t]+\\*[\"']|requirepass|masterauth)|login[ \t]+\S+[ \t]+password"
    rb"|\becho[ \t][^\n|]+\|[ \t]*(?:sudo|passwd|chpasswd|docker|podman|su)\b"
)
"""Expression for a line that may have such a secret."""

_NOT_FLAG_VALUES: Final = re.compile(rb"(?:-.*|\(.*|\*+|<.*|\[.*|\$.*|/.*|[xX]{3,})\Z", re.DOTALL)
_SASL: Final = re.compile(rb"(?i)\bAUTH[ \t]+(?:PLAIN|LOGIN|CRAM-MD5|XOAUTH2|AMQPLAIN)[ \t]+\Z")


def is_command_secret(head: bytes, secret: bytes, piped: bool) -> bool:
    """Return whether the text after a flag or a command is a secret.

    Args:
        head: text up to the secret.
        secret: the text after it.
        piped: a command that reads passwords follows.
    """
    if _NOT_FLAG_VALUES.match(secret):
        return False
    if head.rstrip(b"\"' \t\\").endswith(b"echo") or b"echo -n" in head[-12:]:
        return piped
    if _SASL.search(head):
        return _is_base64_text(secret)
    # 'radius key exchange' is about a key.
    if head.rstrip().endswith(b"key"):
        return any(48 <= byte < 58 for byte in secret)
    # 'PASS: 12' and 'PASS tests/x.py' are results of tests.
    if head.rstrip(b"\"'").endswith(b"PASS "):
        return not re.search(rb"[/(]|^[0-9.]+(?:ms|s)?$|^(?:tests?|all)(?:_|$)|\.(?:py|js|ts|go)$", secret)
    return True


def _is_base64_text(secret: bytes) -> bool:
    try:
        text = b64decode(secret, validate=True)
    except (Error, ValueError):
        return False
    return bool(text) and all(byte in (0, 1) or 32 <= byte < 127 for byte in text)
