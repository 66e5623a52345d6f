"""The documents of the catalog: modules as they were last published, and enrollments."""

from collections.abc import Sequence
from typing import Self

from sqlalchemy import Row

from progress_service.calculations import Denominators, Enrollment, passing_percentage
from progress_service.store.publishing import PublishedContent, PublishedModule
from progress_service.web.documents import Counted, EnrollmentDocument
from progress_service.web.serialization import Document


class ListedModuleDocument(Document):
    """A module, and how many of its contents count."""

    id: str
    title: str
    total_contents: int


class ModuleListDocument(Document):
    """The modules that the caller may see."""

    modules: list[ListedModuleDocument]

    @classmethod
    def of(cls, modules: Sequence[Row[str, str, int]]) -> Self:
        return cls([ListedModuleDocument(*module) for module in modules])


class PublishedContentDocument(Document):
    """A content as it was last published, with all defaults."""

    id: str
    title: str
    type: str
    section: str | None
    weight: int
    completion_threshold: int
    passing_score: float | None

    @classmethod
    def of(cls, content: PublishedContent) -> Self:
        return cls(*content[:-1], passing_score=passing_percentage(content.passing_score))


class PublishedModuleDocument(Document):
    """A module as it was last published, with all defaults."""

    id: str
    title: str
    instructor_ids: Sequence[str]
    contents: list[PublishedContentDocument]

    @classmethod
    def of(cls, module: PublishedModule) -> Self:
        contents = [PublishedContentDocument.of(content) for content in module.contents]
        return cls(module.id, module.title, module.instructor_ids, contents)


class EnrolledDocument(EnrollmentDocument):
    """An enrollment, and whether it is in the statistics."""

    counted: Counted

    @classmethod
    def of(cls, enrollment: Enrollment, module: Denominators) -> Self:
        return cls.extending(EnrollmentDocument.of(enrollment, module), counted=enrollment.counted)
