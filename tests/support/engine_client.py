"""A client as a process of its own: opens the engine, serves one run, and says what it sees.

python engine_client.py SPEC.json RUNTIME_FOLDER [REQUESTS TOKENS]
"""

import sys
from pathlib import Path

import msgspec

from pdswitch.engine.client import EngineError, open_engine
from pdswitch.engine.protocol import Request, RunCommand
from pdswitch.engine.spec import EngineSpec
from pdswitch.plugin.policy import Policy
from pdswitch.record import decode_record


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=EngineSpec)
    count, tokens = map(int, sys.argv[3:] or (6, 5))
    requests = [Request(f"r{i}", [1, 2, 3], tokens, True) for i in range(count)]
    command = RunCommand(Policy(kind="fixed", threshold=2), requests, {"temperature": 0.0})
    try:
        with open_engine(
            spec,
            idle_timeout_s=300,
            start_timeout_s=240,
            log_folder=Path("logs"),
            say=say,
            root=Path(sys.argv[2]),
        ) as engine:
            say(f"engine {engine.facts['pid']}")
            result = engine.run(command, lambda progress: say(f"tokens {progress.tokens}"))
            record = decode_record(result.record)
            say(f"done {sum(row.output_tokens for row in record.requests)}")
    except EngineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
