"""The summary that is printed after a prepared dataset was made or merged."""

from pathlib import Path
from typing import Any


def show(report: dict[str, Any], out: Path) -> None:
    """Print what was kept and what was left out."""
    from prior_fast.console import print_table, stderr, stdout

    for note in report["notes"]:
        stderr.print(note)
    columns = ("studies", "images", "sentences")
    rows = [(split, *(counts[name] for name in columns)) for split, counts in report["splits"].items()]
    total = ("all", *(sum(counts[name] for counts in report["splits"].values()) for name in columns))
    shard = report.get("shard")
    print_table(f"Prepared, shard {shard}" if shard else "Prepared", ("split", *columns), [*rows, total])
    if report["rejected"]:
        rejected = [(row["reason"], row["studies"], row["files"]) for row in report["rejected"]]
        where = "rejected.csv of the merged dataset" if shard else "rejected.csv"
        print_table(f"Left out ({where} names each)", ("reason", "studies", "files"), rejected)
    stdout.print(_last_line(report, out))


def _last_line(report: dict[str, Any], out: Path) -> str:
    if report.get("already_done"):
        return f"{out} was already prepared from these inputs with these options; nothing was changed."
    speed = f"{report['images_per_second_per_core'] or 0} images per second and core"
    if "shard" in report:
        where = f"Shard {report['shard']} is complete in {report['partial']}"
        merge = f"when all are: prior-fast prepare merge --out {out}"
        return f"{where}: {speed}, {report['seconds']} s with {report['workers']} workers; {merge}"
    if "shards" in report:
        return f"{out}: merged from {report['shards']} shards in {report['seconds']} s; they were prepared at {speed}."
    return f"{out}: {speed}, {report['seconds']} s with {report['workers']} workers; look at {out / 'preview.png'}."
