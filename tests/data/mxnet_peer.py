"""The side of test_mxnet.py that runs under mxnet's own Python; needs mxnet and NumPy alone.

python mxnet_peer.py write SPEC.json PREFIX    pack the specified records into PREFIX.rec and .idx
python mxnet_peer.py read PREFIX OUT.json      report every record, by key and in sequence
"""

from __future__ import annotations

import json
import sys

import numpy as np
from mxnet import recordio


def write(spec_path: str, prefix: str) -> None:
    with open(spec_path) as file:
        records = json.load(file)
    writer = recordio.MXIndexedRecordIO(prefix + ".idx", prefix + ".rec", "w")
    for record in records:
        payload = bytes.fromhex(record["data"])
        if "label" in record:
            label = record["label"]
            label = np.array(label, dtype=np.float32) if isinstance(label, list) else label
            header = recordio.IRHeader(0, label, record["id"], record["id2"])
            payload = recordio.pack(header, payload)
        writer.write_idx(record["key"], payload)
    writer.close()


def read(prefix: str, out_path: str) -> None:
    indexed = recordio.MXIndexedRecordIO(prefix + ".idx", prefix + ".rec", "r")
    keys = list(indexed.keys)
    by_key = []
    for key in keys:
        payload = indexed.read_idx(key)
        entry = {"key": key, "payload": payload.hex()}
        if len(payload) >= 24:
            header, data = recordio.unpack(payload)
            label = np.asarray(header.label, dtype=np.float32).tobytes().hex()
            entry.update(label=label, id=header.id, id2=header.id2, data=data.hex())
        by_key.append(entry)
    indexed.close()
    sequential = recordio.MXRecordIO(prefix + ".rec", "r")
    in_sequence = []
    while (payload := sequential.read()) is not None:
        in_sequence.append(payload.hex())
    sequential.close()
    with open(out_path, "w") as file:
        json.dump({"by_key": by_key, "in_sequence": in_sequence}, file)


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
