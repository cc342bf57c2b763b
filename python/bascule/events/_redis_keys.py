"""The names of a topic's keys. See :mod:`bascule.events._redis_scripts`."""

from __future__ import annotations

from zlib import crc32

__all__ = ["TopicKeys"]


class TopicKeys:
    """Where a topic is kept.

    :param topic: its name
    :param partitions: how many streams it has
    """

    def __init__(self, topic: str, partitions: int) -> None:
        self._prefix = f"bascule:events:{{{topic}}}:"
        self.topic = topic
        self.partitions = partitions
        self.count = f"{self._prefix}partitions"
        self.bell = f"{self._prefix}bell"
        self.streams = [self.stream(number) for number in range(partitions)]

    def partition_of(self, key: str) -> int:
        """The partition that a key belongs to."""
        return crc32(key.encode()) % self.partitions

    def stream(self, partition: int) -> str:
        """The events of a partition."""
        return f"{self._prefix}{partition}"

    def lease(self, partition: int, group: str) -> str:
        """Which member reads a partition for a group."""
        return f"{self._prefix}{partition}:lease:{group}"

    def members(self, group: str) -> str:
        """The members of a group."""
        return f"{self._prefix}members:{group}"

    def dead(self, group: str) -> str:
        """The events that a group could not handle."""
        return f"{self._prefix}dead:{group}"
