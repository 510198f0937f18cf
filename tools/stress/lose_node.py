"""Train on two nodes, lose one of them, go on, and compare with a run that lost nothing.

    python tools/stress/lose_node.py [--steps 200]        # as root: it makes network namespaces

Each node is a network namespace with an address and a torchrun of its own, which meet at the
first one's address. Node 2 is lost twice: all its processes are killed at once, and its network is
cut. It is started again afterwards, as Slurm or a person would do; the first node's torchrun waits
for it, restarts its rank, and both continue from the newest checkpoint. Bars: both end with 0;
final weights are equal bit for bit, and so is metrics.jsonl but for times. Exit code 1 otherwise.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from kill_runs import CONFIG, REPOSITORY, differences

_SLOW = 300.0  # seconds that a run may take in all
Node = subprocess.Popen[bytes]


def ip(*words: str) -> None:
    """Run ip(8); raise OSError where that is not permitted."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()} (network namespaces need root)")


@contextmanager
def two_nodes(tag: str) -> Iterator[tuple[str, str]]:
    """Make two network namespaces with a cable between them; yield their names."""
    names = (f"{tag}1", f"{tag}2")
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "cable", "netns",
           names[1])  # fmt: skip
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")
        yield names
    finally:
        for name in made:
            ip("netns", "del", name)


def start(nodes: tuple[str, str], number: int, config: Path, name: str, steps: int) -> Node:
    """Start torchrun on node ``number`` (1, 2), the leader of a process group."""
    words = ["ip", "netns", "exec", nodes[number - 1], sys.executable, "-m"]
    words += ["torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--max-restarts=3"]
    words += ["--rdzv_backend=c10d", "--rdzv_endpoint=10.77.0.1:29500", f"--rdzv_id={name}"]
    # torchrun finds out by itself which node has the endpoint where that is a host's name.
    words += [f"--rdzv_conf=is_host={number == 1}"]
    words += [f"--local-addr=10.77.0.{number}", "tools/train.py", str(config), "--resume", "auto"]
    words += ["--name", name, "--output", str(config.parent), "--train.steps", str(steps)]
    words += ["--train.timeout", "20"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable"}
    # A torchrun that comes later waits for ever otherwise: the first one, whose store the ranks
    # share, tells its address in the first round alone.
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with (config.parent / f"{name}-node{number}.log").open("ab") as log:
        return subprocess.Popen(
            words, env=environment, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True
        )


def kill_node(nodes: tuple[str, str], node: Node) -> None:
    """Kill all processes of node 2 at once."""
    done = subprocess.run(
        ["ip", "netns", "pids", nodes[1]], capture_output=True, text=True, check=True
    )
    for pid in map(int, done.stdout.split()):
        os.kill(pid, signal.SIGKILL)
    node.wait()


def cut_node(nodes: tuple[str, str], node: Node) -> None:
    """Take node 2's network away for longer than the run waits, until its processes have ended."""
    ip("-n", nodes[1], "link", "set", "cable", "down")
    try:
        node.wait(timeout=120)
    except subprocess.TimeoutExpired:  # its torchrun waits for the first node for minutes
        kill_node(nodes, node)
    ip("-n", nodes[1], "link", "set", "cable", "up")


LOSSES = {"killed": kill_node, "cut off": cut_node}


def train(nodes: tuple[str, str], config: Path, name: str, steps: int, losses: list[str]) -> Path:
    """Train to the end, losing node 2 in each of these ways on the way; return the folder."""
    first, second = (start(nodes, number, config, name, steps) for number in (1, 2))
    try:
        for number, loss in enumerate(losses, 1):
            _wait_for_step(config.parent / name, number * steps // (len(losses) + 1), first)
            LOSSES[loss](nodes, second)
            second = start(nodes, 2, config, name, steps)
        codes = [node.wait(timeout=_SLOW) for node in (first, second)]
    finally:
        for node in (first, second):
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
                node.wait()
    if any(codes):
        said = (config.parent / f"{name}-node1.log").read_text()[-4000:]
        raise RuntimeError(f"the nodes ended with {codes}:\n{said}")
    return config.parent / name


def _wait_for_step(folder: Path, step: int, node: Node) -> None:
    """Wait until a checkpoint of ``step`` or later is whole."""
    ends = time.monotonic() + _SLOW
    while not any(
        int(p.parent.name[5:]) >= step for p in folder.glob("checkpoints/step-*/m*.json")
    ):
        if node.poll() is not None or time.monotonic() > ends:
            said = (folder.parent / f"{folder.name}-node1.log").read_text()[-6000:]
            raise RuntimeError(f"no checkpoint of step {step} came in {folder}:\n{said}")
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, two_nodes("arcface") as nodes:
        config = Path(temporary) / "run.yaml"
        config.write_text(CONFIG)
        whole = train(nodes, config, "whole", options.steps, [])
        lost = train(nodes, config, "lost", options.steps, list(LOSSES))
        found = differences(whole, lost)
        said = (config.parent / "lost-node1.log").read_text().splitlines()
    for line in said:
        if "error: " in line or "continuing from" in line:
            print(line)
    print("different: " + ", ".join(found) if found else "same weights, same log")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
