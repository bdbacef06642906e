"""What the scorer makes of the labelled log: a table of all clients, and precision and recall of both halves.

    python loadtests/bots/score.py
    python loadtests/bots/score.py --choose       # thresholds on the half that they may be chosen by

The half that is held out was not looked at when weights and threshold were chosen.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
for folder in ("wire", "services/runtime", "services/tap", "loadtests"):
    sys.path.insert(0, str(ROOT / folder))

from bots.labelled import BOT, THRESHOLD, Outcome, measure, replay  # noqa: E402 - found by the lines above


def table(outcomes: list[Outcome], *, reasons: bool) -> None:
    print(f"{'label':9}{'tool':40}{'requests':>9}{'before':>8}{'score':>7}  verdict")
    for one in sorted(outcomes, key=lambda one: (one.label, one.tool)):
        before = "-" if one.before is None else str(one.before)
        mark = "" if one.right else "   <- wrong"
        print(f"{one.label:9}{one.tool:40}{one.requests:9}{before:>8}{one.highest:7.2f}  {one.kind}{mark}")
        if reasons:
            for reason in one.reasons:
                print(f"{'':12}{reason}")


def matrix(outcomes: list[Outcome]) -> None:
    counted = Counter((one.label, one.kind.value) for one in outcomes)
    kinds = ("human", "crawler", "suspect")
    print(f"{'label':9}" + "".join(f"{kind:>9}" for kind in kinds))
    for label in ("human", "api", "crawler", "bot"):
        print(f"{label:9}" + "".join(f"{counted[label, kind]:9}" for kind in kinds))
    found = measure(outcomes)
    print(
        f"precision {found.precision:.2f} ({found.right} of {found.right + found.wrong}), "
        f"recall {found.recall:.2f} ({found.right} of {found.right + found.missed})"
    )
    bots = [one for one in outcomes if one.label == BOT]
    after = sum(one.requests - one.before for one in bots if one.before is not None)
    print(f"{after} of the {sum(one.requests for one in bots)} requests of bots came after their verdict\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--reasons", action="store_true")
    options = parser.parse_args()
    if options.choose:
        for threshold in (0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
            found = measure(one for one in replay(threshold) if not one.held)
            print(f"{threshold:.2f}  precision {found.precision:.2f}  recall {found.recall:.2f}")
        highest = sorted(((one.highest, one.label, one.tool) for one in replay(2) if not one.held), reverse=True)
        print("\n".join(f"{score:.2f}  {label:8} {tool}" for score, label, tool in highest))
        return
    outcomes = replay(options.threshold)
    for held in (False, True):
        half = [one for one in outcomes if one.held is held]
        print("held out" if held else "chosen by", f"({len(half)} clients)")
        table(half, reasons=options.reasons)
        matrix(half)


if __name__ == "__main__":
    main()
