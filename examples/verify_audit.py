#!/usr/bin/env python3
"""Verifies an audit bundle, by docs/audit-format.md alone.

    pip install cryptography
    python verify_audit.py BUNDLE VERIFIER_KEY [OLDER_BUNDLE_OR_NOTE]

Exit code 0 only if the key signed it and nothing is altered, missing, added or moved.
"""

import base64
import hashlib
import json
import re
import sys

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

COLUMNS = """aggregateType aggregateId sequence eventType eventVersion payload metadata organizationId auditSequence eventId
commandId actor onBehalfOf ip userAgent requestId correlationId causationId recordedAt""".split()


class Altered(Exception):
    pass


def need(condition, reason):
    if not condition:
        raise Altered(reason)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def unbase64(text):
    raw = base64.b64decode(text, validate=True)
    need(base64.b64encode(raw).decode() == text, "base64 is written in another way")
    return raw


def leaf_hash(columns):
    leaf = b"\x01"
    for name in COLUMNS:
        value = columns[name]
        encoded = b"" if value is None else value.encode()
        leaf += (0xFFFFFFFF if value is None else len(encoded)).to_bytes(4, "big") + encoded
    return sha256(b"\x00", leaf)


class Tree:
    """Complete subtrees from left to right."""

    def __init__(self, size, subtrees):
        self.size, self.subtrees = size, list(subtrees)
        need(len(self.subtrees) == bin(size).count("1"), "`before` does not fit `from`")

    def add(self, leaf):
        size, root = self.size, leaf
        while size & 1:
            root = sha256(b"\x01", self.subtrees.pop(), root)
            size >>= 1
        self.subtrees.append(root)
        self.size += 1

    def root(self):
        if not self.subtrees:
            return sha256()
        root = self.subtrees[-1]
        for left in reversed(self.subtrees[:-1]):
            root = sha256(b"\x01", left, root)
        return root


def proven_root(index, size, leaf, path):
    """RFC 9162, 2.1.3.2."""
    need(index < size, "an event is past the tree")
    node, last, root = index, size - 1, leaf
    for sibling in path:
        need(last > 0, "a proof is too long")
        if node & 1 or node == last:
            root = sha256(b"\x01", sibling, root)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            root = sha256(b"\x01", root, sibling)
        node, last = node >> 1, last >> 1
    need(last == 0, "a proof is too short")
    return root


def open_note(note, verifier_key):
    """The origin, size and root of a checkpoint that this key signed."""
    name, key_id, key = verifier_key.split("+", 2)
    public = unbase64(key)
    need(public[:1] == b"\x01" and len(public) == 33, "this is no Ed25519 key")
    need(sha256(name.encode(), b"\n", public)[:4].hex() == key_id, "the verifier key is not whole")
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    signed = False
    for line in signatures.splitlines():
        dash, signer, signature = line.split(" ")
        signature = unbase64(signature)
        need(dash == "\u2014", "a signature line is none")
        if signer == name and signature[:4].hex() == key_id:
            try:
                Ed25519PublicKey.from_public_bytes(public[1:]).verify(signature[4:], text.encode())
            except InvalidSignature:
                raise Altered("the signature is not the key's")
            signed = True
    need(signed, "the key did not sign this checkpoint")
    origin, size, root = text.splitlines()[:3]
    return origin, int(size), unbase64(root)


def opened(columns, place, key):
    if place in ("ip", "userAgent"):
        sealed, bound = columns[place], columns["commandId"] + {"ip": "/ip", "userAgent": "/user_agent"}[place]
    else:
        field = place.removeprefix("payload.")
        (own,) = json.loads(columns["payload"]).values()
        sealed, bound = own[field]["sealed"], columns["eventId"] + "/" + field
    raw = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
    need(raw[0] == 2, "it is sealed in another way")
    try:
        return AESGCM(unbase64(key)).decrypt(raw[1:13], raw[13:], bound.encode()).decode()
    except InvalidTag:
        raise Altered("the key does not open " + place)


def checkpoint_of(path, verifier_key):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        text = json.loads(text.splitlines()[1])["note"]
    except (ValueError, IndexError, KeyError, TypeError):
        pass
    return open_note(text, verifier_key)


def verify(bundle, verifier_key, older=None):
    """Raises Altered with what is wrong; else says how many events were verified."""
    lines = iter(bundle)

    def line():
        text = next(lines, "")
        need(text.endswith("\n"), "the bundle is cut")
        value = json.loads(text)
        again = json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
        need(again == text, "a line is not written as an export writes it: " + text[:100])
        return value

    header = line()
    need(header.get("type") == "header" and header.get("format") == "tenancy-audit/1", "there is no header")
    need(set(header) == {"type", "format", "organization", "from", "to", "complete", "before"}, "the header is altered")
    note = line()
    need(set(note) == {"type", "note"} and note["type"] == "checkpoint", "there is no checkpoint")
    origin, size, root = open_note(note["note"], verifier_key)
    name = verifier_key.split("+", 1)[0]
    rest = origin.removeprefix(name + "/" + header["organization"])
    need(rest != origin and re.fullmatch("(/[0-9]+)?", rest), "the checkpoint is another organization's")
    need(size == header["to"], "the checkpoint is of another size")
    if header["complete"]:
        tree = Tree(header["from"] - 1, map(unbase64, header["before"]))
    else:
        need(header["before"] == [], "nothing shows what comes before")
        tree = Tree(0, [])
    last = header["from"] - 1
    events, block, then = 0, [], None
    while True:
        if older and header["complete"] and tree.size == older[1]:
            then = tree.root()
        value = line()
        kind = value.pop("type", None)
        if kind == "event":
            need(set(value) - {"proof"} == {"columns", "personal"}, "an event is altered")
            columns = value["columns"]
            need(list(columns) == COLUMNS, "columns are altered")
            leaf, sequence, name = leaf_hash(columns), int(columns["auditSequence"]), columns["eventId"]
            for place, datum in value["personal"].items():
                need(opened(columns, place, datum["key"]) == datum["value"], f"{name}: {place} is altered")
            events += 1
            need(sequence > last, f"event {sequence} ({name}) stands out of order")
            last = sequence
            if header["complete"]:
                need("proof" not in value, "an event has a proof too many")
                tree.add(leaf)
                need(sequence == tree.size, f"event {sequence} ({name}) stands where {tree.size} should")
                block.append((sequence, name, leaf))
            else:
                path = map(unbase64, value["proof"])
                need(proven_root(sequence - 1, size, leaf, path) == root, f"event {sequence} ({name}) is altered")
        elif kind == "hashes":
            need(block and value["first"] == block[0][0], "hashes are altered")
            need(len(value["hashes"]) == len(block), "events are missing or added before the hashes from " + str(value["first"]))
            for (sequence, name, leaf), sealed in zip(block, value["hashes"]):
                need(leaf == unbase64(sealed), f"event {sequence} ({name}) or its hash is altered")
            block = []
        else:
            need(kind == "end" and not value, "a line is of no known kind")
            break
    need(next(lines, None) is None, "something follows the end")
    if header["complete"]:
        need(not block and tree.size == size, "events are missing")
        need(tree.root() == root, "the events do not add up to the signed root")
    if older and not (older[1] == size and older[2] == root):
        need(older[1] <= size, "the older checkpoint covers more events: the end is cut")
        need(then == older[2], "history was changed since the older checkpoint, or the bundle does not reach back to it")
    return events


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        older = checkpoint_of(sys.argv[3], sys.argv[2]) if len(sys.argv) == 4 else None
        with open(sys.argv[1], encoding="utf-8", newline="\n") as bundle:
            events = verify(bundle, sys.argv[2], older)
    except (Altered, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        sys.exit(f"not verified: {error}")
    print(f"verified: {events} events")


if __name__ == "__main__":
    main()
