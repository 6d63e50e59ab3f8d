"""The queues as a tree, and what the studies of each take together with those of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tuneyard_api.gpuqueue import DEFAULT_QUEUE
from tuneyard_scheduler.devices import amount
from tuneyard_scheduler.reasons import QueueReason, Refusal
from tuneyard_scheduler.views import QueueView

IMPLIED: Final = QueueView(DEFAULT_QUEUE)
"""The default queue as long as nobody has created it."""


class QueueBook:
    """One queue: its place in the tree, and what it takes. GPUs are numbers: a part of one counts as a part."""

    __slots__ = (
        "children", "guaranteed", "last_place", "name", "own_pending", "own_used", "parent", "path", "pending",
        "problem", "promised", "used", "view",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.view: QueueView | None = None
        """None: studies name it, and it does not exist."""
        self.parent: QueueBook | None = None
        self.path: tuple[QueueBook, ...] = (self,)
        """This queue, its parent, and so on up to the top."""
        self.children: list[QueueBook] = []
        self.problem: Refusal | None = None
        """Why none of its trials may start until somebody mends the queues."""
        self.guaranteed = 0.0
        self.promised = 0.0
        """What its children are guaranteed together."""
        self.own_used = 0.0
        self.own_pending = 0
        self.used = 0.0
        """GPUs in use by its studies and by those of its parts."""
        self.pending = 0
        """Trials of these that wait for a place."""
        self.last_place = 0.0
        """When one of these last got a place, as far as is known."""

    @property
    def limit(self) -> float | None:
        """GPUs that may be in use at most."""
        return self.view.limit if self.view is not None else None

    @property
    def weight(self) -> float:
        """Its part of what is idle beyond the guarantees."""
        return self.view.weight if self.view is not None else 1.0

    @property
    def borrowed(self) -> float:
        """GPUs in use beyond the guarantee."""
        return max(0.0, amount(self.used - self.guaranteed))

    def path_beside(self, other: QueueBook) -> list[QueueBook]:
        """This queue, and those above it that are not above another one: the last one is compared with the other's."""
        above = set(other.path)
        return [each for each in self.path if each not in above]


class QueueTree:
    """All queues. A change of what they take costs O(depth), a change of the queues themselves O(queues)."""

    def __init__(self) -> None:
        default = QueueBook(DEFAULT_QUEUE)
        default.view = IMPLIED
        self._books = {DEFAULT_QUEUE: default}
        self.promised = 0.0
        """What the queues at the top are guaranteed together."""

    def __iter__(self) -> Iterator[QueueBook]:
        return iter(self._books.values())

    def get(self, name: str) -> QueueBook | None:
        """What is known of a queue."""
        return self._books.get(name)

    def set(self, view: QueueView) -> bool:
        """The queue is there, as given; whether that is news."""
        book = self._book(view.name)
        changed = book.view != view or book.view is IMPLIED
        book.view = view
        if changed:
            self._grow()
        return changed

    def remove(self, name: str) -> bool:
        """The queue is gone; studies that name it wait. Whether that is news."""
        book = self._books.get(name)
        if book is None or book.view is None or book.view is IMPLIED:
            return False
        book.view = IMPLIED if name == DEFAULT_QUEUE else None
        self._grow()
        return True

    def charge(self, name: str, used: float, pending: int) -> None:
        """Book a change of what the studies of a queue take."""
        book = self._book(name)
        book.own_used = amount(book.own_used + used)
        book.own_pending += pending
        for queue in book.path:
            queue.used = amount(queue.used + used)
            queue.pending += pending

    def note_place(self, name: str, at: float) -> None:
        """A study of a queue got a place."""
        for queue in self._book(name).path:
            queue.last_place = max(queue.last_place, at)

    def _book(self, name: str) -> QueueBook:
        book = self._books.get(name)
        if book is None:
            book = self._books[name] = QueueBook(name)
        return book

    def _grow(self) -> None:
        """Build the tree anew: links, guarantees and sums."""
        for book in self._books.values():
            book.parent, book.children, book.problem, book.path = None, [], None, (book,)
            book.used, book.pending = book.own_used, book.own_pending
            book.guaranteed = book.promised = 0.0
        for book in self._books.values():
            self._link(book)
        self.promised = 0.0
        for book in reversed(self._downwards()):
            given = book.view.guaranteed if book.view is not None else None
            book.guaranteed = book.promised if given is None else given
            if book.parent is None:
                self.promised += book.guaranteed
            else:
                book.parent.promised += book.guaranteed
                book.parent.used = amount(book.parent.used + book.used)
                book.parent.pending += book.pending

    def _link(self, book: QueueBook) -> None:
        """Hang a queue under its parent; one that cannot be stands alone, and says why."""
        name = book.view.parent if book.view is not None else None
        if name is None:
            return
        parent = self._books.get(name)
        if parent is None or parent.view is None:
            said = f"its parent '{name}' does not exist; create it, or change spec.parent"
            book.problem = Refusal(QueueReason.PARENT_NOT_FOUND, said)
            return
        ring = self._ring(book)
        if ring:
            said = f"{' is a part of '.join(ring)}; change spec.parent of one of them"
            book.problem = Refusal(QueueReason.PARENT_CYCLE, said)
            return
        book.parent = parent
        parent.children.append(book)

    def _ring(self, book: QueueBook) -> list[str]:
        """The queues from this one to itself by way of parents; empty where the way ends elsewhere."""
        names = [book.name]
        while True:
            above = self._books.get(names[-1])
            name = above.view.parent if above is not None and above.view is not None else None
            if name is None or name in names[1:]:
                return []
            names.append(name)
            if name == book.name:
                return names

    def _downwards(self) -> list[QueueBook]:
        """Each queue after its parent. What keeps a parent from working keeps its parts from it."""
        order = [book for book in self._books.values() if book.parent is None]
        for book in order:  # grows as it goes
            for child in sorted(book.children, key=lambda child: child.name):
                if book.problem is not None:
                    said = f"its parent '{book.name}' cannot be used: {book.problem.message}"
                    child.problem = Refusal(QueueReason.PARENT_NOT_READY, said)
                child.path = (child, *book.path)
                order.append(child)
        return order
