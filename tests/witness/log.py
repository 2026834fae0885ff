"""A log that others wrote shows our witness its checkpoints.

    log.py key                      prints the log's verifier key
    log.py show URL WITNESS_KEY     grows, and verifies each cosignature; then rolls back and forks, which has to be refused
"""

import sys

from aics_tlog import MerkleTree, parse_note, parse_vkey, verify_cosignature
from aics_tlog.checkpoint import Checkpoint, sign_checkpoint
from aics_tlog.note import format_vkey, vkey_from_ed25519
from aics_witness.feeder import WitnessClient, WitnessConflict, WitnessRejected
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ORIGIN = "log.example/behind-the-sofa"
KEY = Ed25519PrivateKey.from_private_bytes(bytes([7] * 32))
SIZES = [1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 100, 255, 256, 257, 300, 300]


def checkpoint(tree, size):
    return sign_checkpoint(Checkpoint(ORIGIN, size, tree.root(size)), KEY, "log.example")


def show(client, tree, size, old=None):
    note = checkpoint(tree, size)
    data = note.to_bytes() if hasattr(note, "to_bytes") else note
    return client.submit(data, lambda before, now: tree.consistency_proof(before, now) if before else [], old_size=old)


def refused(kinds, act):
    try:
        act()
    except kinds:
        return
    raise SystemExit("it was cosigned")


def main():
    if sys.argv[1:] == ["key"]:
        print(format_vkey(vkey_from_ed25519("log.example", KEY.public_key())))
        return
    _, _, url, text = sys.argv
    key = parse_vkey(text)
    tree = MerkleTree([b"%d" % number for number in range(SIZES[-1])])
    client = WitnessClient(url, key)
    for size in SIZES:
        lines = show(client, tree, size)
        note = parse_note(checkpoint_text(tree, size) + "\n" + lines)
        (line,) = note.signatures
        assert (line.name, line.key_id) == (key.name, key.key_id), line
        assert verify_cosignature(
            line.signature, key.name, key.public_key, ORIGIN, size, tree.root(size), max_age_seconds=60
        ), size
    refused((WitnessConflict, WitnessRejected), lambda: show(WitnessClient(url, key), tree, 299))
    forked = MerkleTree([b"forked"] + [b"%d" % number for number in range(1, 400)])
    refused((WitnessConflict, WitnessRejected), lambda: show(WitnessClient(url, key), forked, 300))
    refused(WitnessRejected, lambda: show(WitnessClient(url, key), forked, 400, old=300))
    print(f"{len(SIZES)} checkpoints were cosigned")


def checkpoint_text(tree, size):
    return Checkpoint(ORIGIN, size, tree.root(size)).text()


if __name__ == "__main__":
    main()
