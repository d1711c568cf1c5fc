-- Every record carries a checksum over its table and all its fields, so that a record which is
-- not what a store wrote is noticed (ERR-3). The checksums are computed by `migrate.rs`, in the
-- transaction that runs this file; 0 stands until then.

ALTER TABLE rooms ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE members ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE room_keys ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;

-- The second witness of a revocation: a user is let in only where both agree that it was not
-- revoked, so no single damaged page lets a revoked user in (AUTH-2).
CREATE TABLE revocations (
    key BLOB NOT NULL PRIMARY KEY REFERENCES users (key)
) STRICT, WITHOUT ROWID;

INSERT INTO revocations (key) SELECT key FROM users WHERE revoked <> 0;

-- Whether an admin was ever made (USER-1): the second witness of `has_admin` (AUTH-5).
CREATE TABLE bootstrap (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    admin_made INTEGER NOT NULL,
    sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO bootstrap (one, admin_made, sum)
SELECT 1, EXISTS (SELECT 1 FROM users WHERE admin <> 0), 0;
