"""`python -m benchmarks.permissions [--json]`: what roles did on the local platform that AWS would refuse, and which grants
nothing has needed yet, with the reason for each. Run it after what should be covered, such as `./updraft demo`; the
record goes on over restarts.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from ops.permissions import recorded, review
from ops.target import target_of


def main() -> None:
    """Print the review; exit code 1 for a call that would be refused or may be, and for an unused grant without reason."""
    found = review(recorded(), target_of("local").prefix)
    if "--json" in sys.argv[1:]:
        print(json.dumps(asdict(found)))
    else:
        for title, rows in (("refused", found.missing), ("not understood", found.unread)):
            for call in rows:
                print(f"{title}: {call.role} {call.action} on {call.resource}, {call.count} times")
        for grant in found.unused:
            why = grant.because or "nobody has said why it is granted"
            print(f"not needed yet: {grant.role} {grant.action} on {grant.resource}: {why}")
        print(
            f"{found.calls} kinds of calls, {len(found.missing)} that AWS would refuse, {len(found.unread)} not understood; "
            f"{len(found.unused)} grants not needed yet, {len(found.unexplained)} of them unexplained"
        )
    sys.exit(1 if found.missing or found.unread or found.unexplained else 0)


if __name__ == "__main__":
    main()
