"""`python -m benchmarks.permissions [--json]`: what roles did on the local platform that AWS would refuse, and which grants
nothing has needed yet. Run it after what should be covered, such as `./updraft demo`; the record goes on over restarts.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from ops.permissions import recorded, review
from ops.target import target_of


def main() -> None:
    """Print the review; exit code 1 when a call would be refused, or nobody knows whether it would be."""
    found = review(recorded(), target_of("local").prefix)
    if "--json" in sys.argv[1:]:
        print(json.dumps(asdict(found)))
    else:
        for title, rows in (("refused", found.missing), ("not understood", found.unread)):
            for call in rows:
                print(f"{title}: {call.role} {call.action} on {call.resource}, {call.count} times")
        for grant in found.unused:
            print(f"not needed yet: {grant.role} {grant.action} on {grant.resource}")
        print(
            f"{found.calls} kinds of calls, {len(found.missing)} that AWS would refuse, {len(found.unread)} not understood"
        )
    sys.exit(1 if found.missing or found.unread else 0)


if __name__ == "__main__":
    main()
