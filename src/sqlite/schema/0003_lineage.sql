-- Which store the file is of, and how many transactions have changed it: what tells a file of the
-- past, written over the one that is open, from what SQLite wrote there (`lineage.rs`).
CREATE TABLE lineage (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    mark BLOB NOT NULL,
    sum INTEGER NOT NULL
) STRICT;
