"""Says what a run of the fuzzer came to, as the figures that `make test` collects."""

import collections
import json
import sys

folder, examples, seed, *excluded = sys.argv[1:]
with open(f"{folder}/report.json", encoding="utf-8") as file:
    report = json.load(file)
with open(f"{folder}/summary.json", encoding="utf-8") as file:
    seen = json.load(file)

answers = collections.Counter()
for counts in seen.values():
    for status, count in counts.items():
        answers[int(status) // 100] += count
refused = sorted(
    name for name, counts in seen.items() if all(400 <= int(status) < 500 for status in counts)
)
failures = collections.Counter(failure.get("title", "?") for failure in report["failures"])
server_errors = sum(count for title, count in failures.items() if title.startswith("Server error"))
operations, cases = report["operations"], report["test_cases"]

print(
    f"figure: schemathesis {report['schemathesis_version']}, all checks, {examples} examples for each call and "
    f"phase, seed {seed}: {operations['tested']} of {operations['total']} calls, {cases['generated']} cases, "
    f"{sum(answers.values())} answers ({answers[2]} 2xx, {answers[4]} 4xx, {answers[5]} 5xx), "
    f"{server_errors} server errors, {len(report['failures']) - server_errors} answers outside the document, "
    f"{report['running_time']:.0f} s"
)
print(f"figure: schemathesis, calls left out: {', '.join(excluded) or 'none'}")
print(f"figure: schemathesis, calls that only ever got 4xx ({len(refused)}): {', '.join(refused) or 'none'}")
untested = operations["total"] - operations["tested"] - len(excluded)
if not report["complete"] or report["errors"] or untested:
    sys.exit(f"the run is not whole: {untested} calls untested, {report['errors']}")
