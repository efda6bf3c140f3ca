"""SQLite files (.db3), as recorded by ROS 2."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from .bag import BagDamage, BagError, Contents, Message, Topic, survey

MAGIC = b"SQLite format 3\0"


class SqliteFile:
    """One file. Raises BagError if it is not of this format, or has no table of topics."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise BagError(f"{path} is not an SQLite file: it does not begin like one")
        try:
            with closing(self._connect()) as database:
                self._topics = _read_topics(database)
        except sqlite3.Error as error:
            raise BagError(f"{path} is not a bag that can be read: {error}") from None

    def contents(self) -> Contents:
        """From the tables, or from all messages if those are damaged."""
        query = "SELECT topic_id, count(*), min(timestamp), max(timestamp) FROM messages GROUP BY 1"
        try:
            with closing(self._connect()) as database:
                rows = database.execute(query).fetchall()
        except sqlite3.Error:
            found = survey(self.messages({topic.name for topic in self._topics.values()}))
            return Contents(
                tuple(self._topics.values()), found.counts, found.start, found.end, found.damage
            )
        counts = {topic.name: 0 for topic in self._topics.values()}
        for number, count, _, _ in rows:
            counts[self._topics[number].name] += count
        start, end = min((r[2] for r in rows), default=0), max((r[3] for r in rows), default=0)
        return Contents(tuple(self._topics.values()), counts, start, end)

    def messages(self, names: Collection[str], since: int = 0) -> Iterator[Message]:
        """See `Bag.messages`. Without the index by time, which may be what is damaged."""
        numbers = [number for number, topic in self._topics.items() if topic.name in names]
        marks = ", ".join("?" * len(numbers))
        query = (
            "SELECT id, topic_id, timestamp, data FROM messages "
            f"WHERE topic_id IN ({marks}) AND timestamp >= ? ORDER BY id"
        )
        last = 0
        with closing(self._connect()) as database:
            try:
                for row, number, time, data in database.execute(query, [*numbers, since]):
                    yield Message(self._topics[number], time, data)
                    last = row
            except sqlite3.Error as error:
                raise BagDamage(f"{self.path}: damaged after message {last}: {error}") from None

    def _connect(self) -> sqlite3.Connection:
        """Open the file for reading, also if it is shorter than it says."""
        unfinished = self.path.with_name(f"{self.path.name}-wal").exists()
        mode = "mode=ro" if unfinished else "mode=ro&immutable=1"
        database = sqlite3.connect(f"file:{quote(str(self.path))}?{mode}", uri=True)
        database.execute("PRAGMA writable_schema = ON")
        return database


def _read_topics(database: sqlite3.Connection) -> dict[int, Topic]:
    columns = {row[1] for row in database.execute("PRAGMA table_info(topics)")}
    qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
    definitions = {}
    if database.execute("PRAGMA table_info(message_definitions)").fetchall():
        query = "SELECT topic_type, encoded_message_definition FROM message_definitions"
        definitions = dict(database.execute(query).fetchall())
    query = f"SELECT id, name, type, serialization_format, {qos} FROM topics ORDER BY id"
    return {
        number: Topic(name, kind, encoding, definitions.get(kind, ""), profiles)
        for number, name, kind, encoding, profiles in database.execute(query)
    }
