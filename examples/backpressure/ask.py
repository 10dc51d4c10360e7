"""Send a list of items to the produce app and print what it answers.

    python ask.py first second third

An argument such as 1000x means so many items.
"""

import os
import sys

import httpx

URL = os.environ.get("PRODUCE_URL", "http://127.0.0.1:8000")
PATIENCE = 4.0  # seconds


def main(arguments: list[str]) -> int:
    items: list[str] = []
    for each in arguments:
        count = each.removesuffix("x")
        many = each.endswith("x") and count.isdecimal()
        items += [f"item {n}" for n in range(int(count))] if many else [each]
    answer = httpx.post(f"{URL}/produce", json=items, timeout=PATIENCE)
    print(f" [x] {answer.status_code}: {answer.text}")
    return 0 if answer.is_success else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Usage: python ask.py ITEM...")
    try:
        sys.exit(main(sys.argv[1:]))
    except httpx.TimeoutException:
        sys.exit(f" [!] No answer for {PATIENCE:.0f} s")
    except (httpx.HTTPError, httpx.InvalidURL) as why:
        sys.exit(f"Failed at {URL}: {why!r}. Is the app running?")
