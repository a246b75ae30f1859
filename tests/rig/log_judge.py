"""Judges checkpoints and proofs of the audit log with a verifier that we did not write (metamorphic-log), from what clients are told.

usage: log_judge.py FILE      prints what it found valid; ends with 1 and the reason when something is not

FILE holds one JSON object: {"keys": the answer of /api/evidence/keys,
  "checkpoints": notes of growing size,
  "events": answers of /api/audit/proof?event=,
  "growth": an answer of /api/audit/proof?from=&to= between the first and the last checkpoint}
"""

import base64
import hashlib
import json
import sys

import metamorphic_log as log


def hashes(proof):
    return [base64.b64decode(line, validate=True) for line in proof["hashes"]]


def tlog_proof(text):
    """The parts of C2SP's tlog-proof: index, hashes, checkpoint."""
    head, _, checkpoint = text.partition("\n\n")
    kind, index, *lines = head.split("\n")
    assert kind == "c2sp.org/tlog-proof@v1", kind
    word, _, number = index.partition(" ")
    assert word == "index", index
    return int(number), [base64.b64decode(line, validate=True) for line in lines], checkpoint


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        told = json.load(file)
    keys = [key["verifierKey"] for key in told["keys"]["keys"]]
    heads = [log.checkpoint_verify(note, keys) for note in told["checkpoints"]]
    for proof in told["events"]:
        leaf = hashlib.sha256(b"\0" + proof["event"].encode()).digest()
        index, path, checkpoint = tlog_proof(proof["tlogProof"])
        assert (index, path, checkpoint) == (proof["index"], hashes(proof), proof["checkpoint"]), "two spellings differ"
        log.checkpoint_verify_inclusion(checkpoint, keys, index, leaf, path)
    growth = hashes(told["growth"])
    assert (told["growth"]["from"], told["growth"]["to"]) == (heads[0].size, heads[-1].size), "of other sizes"
    log.checkpoint_verify_consistency(told["checkpoints"][0], told["checkpoints"][-1], keys, growth)
    print(f"{len(heads)} checkpoints, {len(told['events'])} events, growth from {heads[0].size} to {heads[-1].size}")


if __name__ == "__main__":
    main()
