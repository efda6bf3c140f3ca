"""SQLite files (.db3), as recorded by ROS 2, read by the SQLite of the standard library.

The reader of `rosbags` rejects what this one reads: a file that is shorter than declared, one whose
last messages are in a journal beside it (`-wal`), QoS profiles that lack fields, paths with a `#`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .bag import BagDamage, BagError, Contents, Message, RecordedTopic, counted, joined, survey
from .definitions import type_name

_RECURSION = 33
"""SQLITE_RECURSIVE, which Python's module does not have."""

MAGIC = b"SQLite format 3\0"


class SqliteFile:
    """One file, which begins with `MAGIC`; errors call it `name`.

    Raises BagError if it has no table of topics.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        try:
            with closing(self._connect()) as database:
                _check_no_views(database)
                self._topics = _read_topics(database)
        except (sqlite3.Error, TypeError) as error:  # TypeError: a column of another type
            raise BagError(f"{name} is not a bag that can be read: {error}") from None

    def contents(self) -> Contents:
        """From the tables, or from all messages if those are damaged."""
        query = "SELECT topic_id, count(*), min(timestamp), max(timestamp) FROM messages GROUP BY 1"
        empty = counted((topic, 0) for topic in self._topics.values())
        try:
            with closing(self._connect()) as database:
                rows = database.execute(query).fetchall()
        except sqlite3.Error:
            rows = [(None,)]
        if not all(isinstance(value, int) for row in rows for value in row):
            return joined([empty, survey(self.messages(empty.counts))])
        rows = [row for row in rows if row[0] in self._topics]
        parts = [counted([(self._topics[n], count)], a, b) for n, count, a, b in rows]
        return joined([empty, *parts])

    def messages(
        self, names: Collection[str], since: int | None = None, until: int | None = None
    ) -> Iterator[Message]:
        """See `Bag.messages`. Without the index by time, which may be what is damaged."""
        numbers = [number for number, topic in self._topics.items() if topic.name in names]
        marks = ", ".join("?" * len(numbers))
        query = f"SELECT id, topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks})"
        limits = {" AND +timestamp >= ?": since, " AND +timestamp < ?": until}
        given = {text: _int64(limit) for text, limit in limits.items() if limit is not None}
        query = "".join([query, *given, " ORDER BY id"])
        last: int | None = None
        with closing(self._connect()) as database:
            try:
                for row in database.execute(query, [*numbers, *given.values()]):
                    yield self._message(row, last)
                    last = row[0]
            except sqlite3.Error as error:
                place = "before the first message" if last is None else f"after message {last}"
                raise BagDamage(f"{self._name}: damaged {place}: {error}") from None

    def _message(self, row: tuple[Any, ...], last: int | None) -> Message:
        """A message, if its columns are what they must be; a damaged tree may repeat rows."""
        number, topic, time, data = row
        if not isinstance(time, int) or not isinstance(data, bytes):
            kinds = f"{type(time).__name__} and {type(data).__name__}"
            raise BagDamage(
                f"{self._name}: message {number}: expected a time and bytes, got {kinds}"
            )
        if last is not None and number <= last:
            raise BagDamage(f"{self._name}: message {number} comes after message {last}")
        return Message(self._topics[topic], time, data)

    def _connect(self) -> sqlite3.Connection:
        """Open the file for reading, also if it is shorter than declared."""
        unfinished = self._path.with_name(f"{self._path.name}-wal").exists()
        mode = "mode=ro" if unfinished else "mode=ro&immutable=1"
        database = sqlite3.connect(f"file:{quote(str(self._path))}?{mode}", uri=True)
        database.execute("PRAGMA writable_schema = ON")
        database.set_authorizer(_authorized)
        return database


def _authorized(action: int, _first: Any, _second: Any, _schema: Any, source: str | None) -> int:
    """Deny views and triggers, of which `source` is one, and recursion: a damaged schema may call
    a view a table."""
    denied = source is not None or action == _RECURSION
    return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK


def _check_no_views(database: sqlite3.Connection) -> None:
    """TypeError if there are views: recorders make none, and one can have rows without end."""
    views = database.execute("SELECT name FROM sqlite_master WHERE type = 'view'").fetchall()
    if views:
        raise TypeError(f"expected tables, got the view {views[0][0]}")


def _read_topics(database: sqlite3.Connection) -> dict[int, RecordedTopic]:
    topics, definitions = _columns(database, "topics"), _read_definitions(database)
    qos = "offered_qos_profiles" if "offered_qos_profiles" in topics else "''"
    digest = "type_description_hash" if "type_description_hash" in topics else "''"
    query = f"SELECT id, name, type, serialization_format, {qos}, {digest} FROM topics ORDER BY id"
    found = {}
    for number, name, kind, encoding, profiles, type_hash in database.execute(query):
        if not all(isinstance(text, str) for text in (name, kind, encoding)):
            raise TypeError(f"expected texts for topic {number}, got {(name, kind, encoding)}")
        definition = definitions.get((kind, type_hash)) or definitions.get((kind, None), "")
        profiles = profiles if isinstance(profiles, str) else ""
        found[number] = RecordedTopic(name, type_name(kind), encoding, definition, profiles)
    return found


def _read_definitions(database: sqlite3.Connection) -> dict[tuple[Any, Any], str]:
    """(type, hash) -> definition, and (type, None) -> its first one: a type may have several."""
    columns = _columns(database, "message_definitions")
    if not columns:
        return {}
    digest = "type_description_hash" if "type_description_hash" in columns else "NULL"
    query = f"SELECT topic_type, {digest}, encoded_message_definition FROM message_definitions"
    definitions: dict[tuple[Any, Any], str] = {}
    for kind, type_hash, text in database.execute(query):
        if isinstance(text, str):
            definitions.setdefault((kind, None), text)
            definitions[kind, type_hash] = text
    return definitions


def _int64(number: int) -> int:
    """The nearest number that SQLite can compare with."""
    return min(max(number, -(1 << 63)), (1 << 63) - 1)


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
