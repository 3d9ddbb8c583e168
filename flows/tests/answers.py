"""Answers SQL over the archive's files: {"files": GLOB, "sql": [..]} on stdin, lists of rows as JSON on stdout."""
import json
import sys

import duckdb

asked = json.load(sys.stdin)
base = duckdb.connect()
base.execute(
    "CREATE TABLE flow AS SELECT *, octets * sampling::HUGEINT * thinned AS o, packets * sampling::HUGEINT * thinned AS p,"
    " epoch_ms(start) AS start_ms, epoch_ms(\"end\") AS end_ms"
    " FROM read_parquet(?, hive_partitioning = false)", [asked["files"]])
json.dump([[[str(v) for v in row] for row in base.execute(sql).fetchall()] for sql in asked["sql"]], sys.stdout)
