-- The first layout. Ids are TEXT under SQLite's BINARY collation: byte order (LIST-1).

CREATE TABLE rooms (
    id TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    encrypted INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    rekey_due INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
    room TEXT NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
    endpoint TEXT NOT NULL,
    owner INTEGER NOT NULL,
    joined_epoch INTEGER NOT NULL,
    added_at INTEGER NOT NULL,
    PRIMARY KEY (room, endpoint)
) STRICT, WITHOUT ROWID;

-- The reverse index: SQLite keeps it with its table, so it cannot lie (LIST-4).
CREATE INDEX rooms_of ON members (endpoint, room);

-- Epoch before endpoint, so that a rekey writes its keys side by side, however many epochs there
-- were before.
CREATE TABLE room_keys (
    room TEXT NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
    epoch INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    ciphertext BLOB NOT NULL,
    PRIMARY KEY (room, epoch, endpoint)
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    key BLOB NOT NULL PRIMARY KEY,
    label TEXT NOT NULL,
    admin INTEGER NOT NULL,
    revoked INTEGER NOT NULL,
    added_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

-- So that the last active admin is found without looking at the other users (USER-4, AUTH-5).
CREATE INDEX active_admins ON users (key) WHERE admin = 1 AND revoked = 0;
