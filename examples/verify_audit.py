#!/usr/bin/env python3
"""Verifies an audit bundle, by docs/audit-format.md alone.

    pip install cryptography
    python verify_audit.py [--witness WITNESS_KEY]... [--quorum N] BUNDLE VERIFIER_KEY [OLDER_BUNDLE_OR_NOTE]

Several verifier keys are one argument, with spaces between. Exit code 0 only if one of the keys signed the bundle, enough of
the witnesses cosigned it (all, without a quorum), and nothing is altered, missing, added or moved.
"""

import argparse
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
PLACES = {"organizationId", "auditSequence"}
MAY_BE_NULL = {"onBehalfOf", "ip", "userAgent", "requestId", "causationId"}
RUN = 256
INSTALLATION = "installation"
ACCESS = "access"
RECORD = """part id createdAt kind actor operation organizationId reachedOrganizationId targetId times ip""".split()
NEVER_NULL = {"part", "id", "createdAt", "times"}
EVENTS_MAX = 2**63 - 1
LINE_BYTES_MAX = 16 * 1024 * 1024
NOTE_BYTES_MAX = 256 * 1024
SIGNATURES_MAX = 64
# What may not stand in the name of a key: "+", and Unicode's white space.
NO_NAME = re.compile("[+\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


class Altered(Exception):
    pass


def need(condition, reason):
    if not condition:
        raise Altered(reason)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def unbase64(text, length=None):
    """RFC 4648, section 4; nothing but the one spelling of these bytes."""
    need(isinstance(text, str), "base64 is no string")
    raw = base64.b64decode(text, validate=True)
    need(base64.b64encode(raw).decode() == text, "base64 is written in another way")
    need(length is None or len(raw) == length, "base64 is of another length")
    return raw


def unbase64url(text):
    """RFC 4648, section 5, without padding."""
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    need(base64.urlsafe_b64encode(raw).decode().rstrip("=") == text, "base64url is written in another way")
    return raw


def number(text, least, most):
    """A number as text: decimal, without zeros before and without a sign."""
    need(re.fullmatch("0|[1-9][0-9]{0,19}", text), "a number is written in another way")
    need(least <= int(text) <= most, "a number is out of range")
    return int(text)


# ---------------------------------------------------------------- lines


def members(value, *names):
    """That this is an object with exactly these members, in this order."""
    need(isinstance(value, dict) and list(value) == list(names), "not the members " + ", ".join(names))


def no_number(name):
    raise Altered(name + " is no number of JSON")


def read_line(bundle):
    """The next line as what it says, if it is written in the only way."""
    raw = bundle.readline(LINE_BYTES_MAX + 1)
    need(raw.endswith(b"\n"), "the bundle is cut, or a line is too long")
    text = raw[:-1].decode("utf-8")
    value = json.loads(text, parse_constant=no_number)
    # This writes strings as the page says, keeps the order of members, and doubles none.
    again = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    need(again == text, "a line is not written as an export writes it: " + text[:100])
    need(isinstance(value, dict), "a line is no object")
    return value


def read_header(bundle):
    header = read_line(bundle)
    members(header, "type", "format", "organization", "from", "to", "complete", "before")
    need(header["type"] == "header" and header["format"] == "tenancy-audit/1", "there is no header of this format")
    need(isinstance(header["organization"], str), "the organization is no string")
    need(type(header["from"]) is int and type(header["to"]) is int, "`from` or `to` is no number")
    need(1 <= header["from"] <= header["to"] + 1 and header["to"] <= EVENTS_MAX, "`from` and `to` do not fit")
    need(isinstance(header["complete"], bool), "`complete` is neither true nor false")
    need(isinstance(header["before"], list), "`before` is no list")
    header["before"] = [unbase64(peak, 32) for peak in header["before"]]
    if header["complete"]:
        need(len(header["before"]) == bin(header["from"] - 1).count("1"), "`before` does not fit `from`")
    else:
        need(header["before"] == [], "nothing shows what comes before")
        need(header["organization"] not in (INSTALLATION, ACCESS), "a bundle of this trail is complete")
    return header


def read_checkpoint(bundle, header, keys, quorum=None):
    line = read_line(bundle)
    members(line, "type", "note")
    need(line["type"] == "checkpoint" and isinstance(line["note"], str), "there is no checkpoint")
    names, origin, size, root = open_note(line["note"], keys)
    need(tree_of(origin) in {name + "/" + header["organization"] for name in names}, "the checkpoint is of another tree")
    need(size == header["to"], "the checkpoint is of another size")
    if quorum:
        need_witnesses(line["note"], *quorum)
    return origin, size, root


def read_event(line, organization, proof_is_due, following):
    """The columns, and the audit sequence; of the installation's events the number that follows."""
    installation = organization == INSTALLATION
    members(line, "type", "columns", "personal", *(["proof"] if proof_is_due else []))
    columns = line["columns"]
    members(columns, *COLUMNS)
    for name, value in columns.items():
        is_null = name in MAY_BE_NULL or (installation and name in PLACES)
        need(isinstance(value, str) or (value is None and is_null), name + " is no string")
    need(columns["organizationId"] == (None if installation else organization), "an event is another organization's")
    places = line["personal"]
    need(isinstance(places, dict) and list(places) == sorted(places), "`personal` is not in order")
    for place, datum in places.items():
        members(datum, "value", "key")
        need(opened(columns, place, unbase64(datum["key"], 32)) == datum["value"], place + " is altered")
    if installation:
        need(columns["auditSequence"] is None, "an event of the installation has an audit sequence")
        return columns, following
    return columns, number(columns["auditSequence"], 1, EVENTS_MAX)


def read_record(line):
    """The columns of a record of the access trail."""
    members(line, "type", "columns", "personal")
    columns = line["columns"]
    members(columns, *RECORD)
    for name, value in columns.items():
        need(isinstance(value, str) or (value is None and name not in NEVER_NULL), name + " is no string")
    places = line["personal"]
    need(isinstance(places, dict) and list(places) in ([], ["ip"]), "a record has no such place")
    for datum in places.values():
        members(datum, "value", "key")
        opened = unseal(columns["ip"], columns["id"] + "/ip", unbase64(datum["key"], 32), "ip")
        need(opened == datum["value"], "ip is altered")
    return columns


# ---------------------------------------------------------------- the note


def verifier_key(text, algorithm=b"\x01"):
    name, key_id, key = (text.split("+", 2) + ["", ""])[:3]
    public = unbase64(key, 33)
    need(name and not NO_NAME.search(name), "a verifier key has no name")
    need(public[:1] == algorithm, "a key is of another kind")
    need(sha256(name.encode(), b"\n", public)[:4].hex() == key_id, "the verifier key is not whole")
    return (name, key_id), Ed25519PublicKey.from_public_bytes(public[1:])


def open_note(note, keys):
    """The names of the keys that signed it, and the origin, size and root of the checkpoint."""
    text, lines = signature_lines(note)
    names = signed_by(lines, dict(map(verifier_key, keys)), lambda key, signature: key.verify(signature, text))
    need(names, "none of the keys signed this checkpoint")
    origin, size, root, *rest = (text.decode("utf-8")[:-1].split("\n") + ["", ""])
    need(len(rest) >= 2 and origin and all(rest[:-2]), "a checkpoint has three lines, and none is empty")
    return names, origin, number(size, 0, 2**64 - 1), unbase64(root, 32)


def signature_lines(note):
    """The text as bytes, and each signature line as name, id of the key and signature."""
    need(len(note.encode("utf-8")) <= NOTE_BYTES_MAX, "the note is too long")
    need(not re.search("[\x00-\x09\x0b-\x1f]", note), "the note has control characters")
    text, blank, signatures = note.rpartition("\n\n")
    need(blank and signatures.endswith("\n"), "this is no signed note")
    text += "\n"
    lines = signatures[:-1].split("\n")
    need(len(lines) <= SIGNATURES_MAX, "there are too many signatures")
    found = []
    for line in lines:
        need(line.count(" ") == 2, "a signature line is none")
        dash, name, signature = line.split(" ")
        signature = unbase64(signature)
        need(dash == "\u2014" and name and not NO_NAME.search(name), "a signature line is none")
        need(len(signature) > 4, "a signature is too short")
        found.append(((name, signature[:4].hex()), signature[4:]))
    return text.encode("utf-8"), found


def signed_by(lines, keys, check):
    """The names of those of these keys that signed; `check` raises where a signature is not the key's."""
    signed = []
    for signer, signature in lines:
        if signer not in keys:
            continue
        need(signer not in signed, "a key signed twice")
        try:
            check(keys[signer], signature)
        except InvalidSignature:
            raise Altered("the signature is not the key's")
        signed.append(signer)
    return [name for name, _ in signed]


def witnesses_of(texts, quorum):
    """The keys of witnesses, each of another witness, and how many of them it takes."""
    keys = [verifier_key(text, b"\x04") for text in texts]
    quorum = len(keys) if quorum is None else quorum
    need(len({name for (name, _), _ in keys}) == len(keys), "two witnesses have one name")
    need(len({key.public_bytes_raw() for _, key in keys}) == len(keys), "two witnesses have one key")
    need(min(1, len(keys)) <= quorum <= len(keys), "so many witnesses are not known, or none is asked for")
    return dict(keys), quorum


def need_witnesses(note, keys, quorum):
    """That enough witnesses cosigned the note."""
    text, lines = signature_lines(note)

    def check(key, cosignature):
        need(len(cosignature) == 8 + 64, "a cosignature is of another length")
        seconds = int.from_bytes(cosignature[:8], "big")
        need(seconds < 2**63, "a cosignature has no time")
        key.verify(cosignature[8:], b"cosignature/v1\ntime %d\n" % seconds + text)

    need(len(signed_by(lines, keys, check)) >= quorum, "too few witnesses cosigned the checkpoint")


def tree_of(origin):
    """The origin without the epoch."""
    tree, slash, epoch = origin.rpartition("/")
    is_epoch = slash and re.fullmatch("0|[1-9][0-9]{0,19}", epoch) and int(epoch) < 2**64
    return tree if is_epoch else origin


def older_checkpoint(older, keys):
    """The origin, size and root of an older checkpoint, from its note or from the beginning of a bundle."""
    is_bundle = older.read(1) == b"{"
    older.seek(0)
    if is_bundle:
        return read_checkpoint(older, read_header(older), keys)
    return open_note(older.read(NOTE_BYTES_MAX + 1).decode("utf-8"), keys)[1:]


# ---------------------------------------------------------------- the tree


def leaf_hash(columns, version=b"\x01", names=COLUMNS):
    leaf = version
    for name in names:
        value = columns[name]
        encoded = b"" if value is None else value.encode("utf-8")
        leaf += (0xFFFFFFFF if value is None else len(encoded)).to_bytes(4, "big") + encoded
    return sha256(b"\x00", leaf)


class Tree:
    """Complete subtrees from left to right."""

    def __init__(self, size, subtrees):
        self.size, self.subtrees = size, list(subtrees)

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


# ---------------------------------------------------------------- personal data


def opened(columns, place, key):
    if place in ("ip", "userAgent"):
        sealed, bound = columns[place], columns["commandId"] + {"ip": "/ip", "userAgent": "/user_agent"}[place]
    else:
        need(place.startswith("payload."), "there is no place " + place)
        field = place.removeprefix("payload.")
        value = json.loads(columns["payload"], parse_constant=no_number)
        for name in (columns["eventType"], field, "sealed"):
            need(isinstance(value, dict) and name in value, "nothing is sealed at " + place)
            value = value[name]
        sealed, bound = value, columns["eventId"] + "/" + field
    return unseal(sealed, bound, key, place)


def unseal(sealed, bound, key, place):
    need(isinstance(sealed, str), "nothing is sealed at " + place)
    raw = unbase64url(sealed)
    need(raw[:1] == b"\x02" and len(raw) >= 1 + 12 + 16, "it is sealed in another way")
    try:
        return AESGCM(key).decrypt(raw[1:13], raw[13:], bound.encode("utf-8")).decode("utf-8")
    except InvalidTag:
        raise Altered("the key does not open " + place)


# ---------------------------------------------------------------- the bundle


def verify(bundle, keys, older=None, witnesses=(), quorum=None):
    """Says how many events were verified; raises Altered or ValueError with what is wrong.

    `bundle` is a file of bytes, and `older` another, of a note or a bundle; `keys` are verifier keys, and `witnesses` those
    of witnesses, of which `quorum` have to have cosigned.
    """
    quorum = witnesses_of(witnesses, quorum)
    older = older_checkpoint(older, keys) if older is not None else None
    header = read_header(bundle)
    origin, size, root = read_checkpoint(bundle, header, keys, quorum)
    complete, last = header["complete"], header["from"] - 1
    tree = Tree(last if complete else 0, header["before"])
    events, run, then = 0, [], None
    while True:
        if older and complete and tree.size == older[1]:
            then = tree.root()
        line = read_line(bundle)
        kind = line.get("type")
        if kind in ("event", "record") and (kind == "record") == (header["organization"] == ACCESS):
            if kind == "record":
                columns, sequence = read_record(line), last + 1
                leaf, name = leaf_hash(columns, b"\x02", RECORD), f"record {sequence} ({columns['id']})"
            else:
                columns, sequence = read_event(line, header["organization"], not complete, last + 1)
                leaf, name = leaf_hash(columns), f"event {sequence} ({columns['eventId']})"
            need(sequence > last, name + " stands out of order")
            last = sequence
            events += 1
            if complete:
                need(not (run and tree.size % RUN == 0), "no hashes follow the end of a run")
                tree.add(leaf)
                need(sequence == tree.size, f"{name} stands where {tree.size} should")
                run.append((name, leaf))
            else:
                need(isinstance(line["proof"], list), "a proof is no list")
                path = [unbase64(sibling, 32) for sibling in line["proof"]]
                need(proven_root(sequence - 1, size, leaf, path) == root, name + " is altered")
        elif kind == "hashes":
            members(line, "type", "first", "hashes")
            need(run and (tree.size % RUN == 0 or tree.size == size), "hashes stand where no run ends")
            need(type(line["first"]) is int and line["first"] == tree.size - len(run) + 1, "hashes are of other events")
            need(isinstance(line["hashes"], list) and len(line["hashes"]) == len(run), "there is not a hash an event")
            for (name, leaf), sealed in zip(run, line["hashes"]):
                need(leaf == unbase64(sealed, 32), name + " or its hash is altered")
            run = []
        else:
            need(line == {"type": "end"}, "a line is of no known kind")
            break
    need(bundle.read(1) == b"", "something follows the end")
    if complete:
        need(not run and tree.size == size, "events or hashes are missing")
        need(tree.root() == root, "the events do not add up to the signed root")
    if older:
        need(tree_of(older[0]) == tree_of(origin), "the older checkpoint is of another tree")
        need(older[1] <= size, "the older checkpoint covers more events: the end is cut")
        if older[1:] != (size, root):
            need(then == older[2], "history was changed since the older checkpoint, or nothing shows that it was not")
    return events


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle")
    arguments.add_argument("keys")
    arguments.add_argument("older", nargs="?")
    arguments.add_argument("--witness", action="append", default=[])
    arguments.add_argument("--quorum", type=int)
    given = arguments.parse_args()
    try:
        older = open(given.older, "rb") if given.older else None
        with open(given.bundle, "rb") as bundle:
            events = verify(bundle, given.keys.split(), older, given.witness, given.quorum)
    except (Altered, ValueError, RecursionError) as error:
        sys.exit(f"not verified: {error}")
    print(f"verified: {events} events")


if __name__ == "__main__":
    main()
