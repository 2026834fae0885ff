"""Holds a webhook, given as JSON on standard input, against the library of Standard Webhooks from PyPI."""

import json
import sys
from datetime import datetime, timedelta, timezone

try:
    from standardwebhooks import Webhook
except ImportError:
    print("webhooks: left out: the library from PyPI, which is not here")
    sys.exit(0)

given = json.load(sys.stdin)
headers, body = given["headers"], given["body"]
webhook = Webhook(given["secret"])


def refuses(webhook, body, headers):
    try:
        webhook.verify(body, headers)
    except Exception:
        return True
    return False


assert webhook.verify(body, headers)["type"] == "member.invited"
assert refuses(webhook, body.replace("eve@", "eva@"), headers)
assert refuses(Webhook(given["other"]), body, headers)
late = datetime.now(timezone.utc) - timedelta(minutes=6)
old = dict(headers)
old["webhook-timestamp"] = str(int(late.timestamp()))
old["webhook-signature"] = webhook.sign(headers["webhook-id"], late, body)
assert refuses(webhook, body, old)
print("webhooks: the library from PyPI does too")
