import json

import heddle_registry_acme

from heddle_registry.testing.usage_kit import Transcript, usage_contract


def log(*lines: dict) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


FIRST = {"session": "s1", "id": "r1", "model": "acme-1", "in": 120, "cached": 100, "out": 7}

TestAcmeUsage = usage_contract(
    heddle_registry_acme,
    [
        Transcript(
            "acme",
            "s1.jsonl",
            log(
                {"session": "s1", "say": "hello"},
                FIRST,
                FIRST,  # written twice, counted once
                {"session": "s1", "id": "r2", "model": "acme-1", "in": 130, "out": 5},
            ),
            {
                "acme:session:s1": {
                    "input_tokens": 150,
                    "cache_read_tokens": 100,
                    "output_tokens": 12,
                }
            },
        ),
    ],
)
