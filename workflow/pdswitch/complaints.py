"""What is wrong with a config, in the user's words: pydantic's errors as one sentence per key."""

import difflib
import json
import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

BOUNDS = {
    annotated_types.Ge: ("ge", "at least"),
    annotated_types.Gt: ("gt", "above"),
    annotated_types.Le: ("le", "at most"),
    annotated_types.Lt: ("lt", "below"),
}
PLAIN = {int: "a whole number", float: "a number", str: "text"}


def complaint(
    model: type[BaseModel],
    error: ValidationError,
    prefix: str = "",
    manual: str = "docs/config.md",
    also: Iterable[str] = (),
) -> str:
    """Return what is wrong: each key once, what it is, and what it may be.

    Args:
        model: what the values were validated against.
        error: what that raised.
        prefix: the key under which the values stand.
        manual: where the keys are described.
        also: further keys that may stand beside the model's own.
    """
    by_key: dict[str, list[str]] = {}
    for problem in error.errors():
        place = Place(model, problem["loc"])
        key = ".".join([*([prefix] if prefix else []), *place.keys])
        kind, context = problem["type"], problem.get("ctx", {})
        if kind == "invalid_key" or problem["loc"][-1:] == ("[key]",):
            said = "is no name; put it in quotes"
            key = key.removesuffix(".[key]")
        elif kind == "extra_forbidden":
            known = [*place.known, *(also if place.parent is model else ())]
            said = f"is not a known key; {guess(place.keys[-1], known, model)}see {manual}"
        elif kind == "value_error":
            said = problem["msg"].removeprefix("Value error, ")
            key = f"{key}:" if key else ""
        elif kind == "missing":
            said = f"is missing; use {place.expected}"
        elif kind == "union_tag_not_found":
            said = f"has no law; use {place.expected}"
        elif kind == "union_tag_invalid":
            words = [law_of(one) for one in kinds(place.annotation)]
            key = f"{key}.law"
            said = f"is {context['tag']!r}; {question(context['tag'], words)}use {either(words)}"
        elif place.contains:
            said = f"contains {shown(problem['input'])}; use {place.expected}"
        else:
            maybe = question(problem["input"], place.choices)
            said = f"is {shown(problem['input'])}; {maybe}use {place.expected}"
        by_key.setdefault(key, []).append(said)
    # Of a choice between kinds of values pydantic names each; one that came further says more.
    sentences = {
        key: next((said for said in all_said if said.startswith("contains")), all_said[0])
        for key, all_said in by_key.items()
    }
    return "; ".join(f"{key} {said}".strip() for key, said in sentences.items())


class Place:
    """Where a problem lies: pydantic's location without the names of its own types.

    Attributes:
        keys: that lead there, as the user writes them.
        parent: the innermost model around it.
        annotation: of the value there.
        metadata: its bounds.
        contains: whether the value is one of a list, whose key and annotation are given.
    """

    def __init__(self, model: type[BaseModel], location: tuple[int | str, ...]) -> None:
        self.keys: list[str] = []
        self.parent = model
        self.contains = False
        self.annotation: Any = model
        self.metadata: list[Any] = []
        parts = list(location)
        while parts and not self.contains:
            members = kinds(self.annotation)
            if len(members) > 1:  # pydantic puts in which of the kinds it speaks of
                self._choose(members, str(parts.pop(0)), bool(parts))
                continue
            (one,) = members
            if isinstance(one, type) and issubclass(one, BaseModel):
                self._enter(one, str(parts.pop(0)))
            elif get_origin(one) is list:
                self.contains = True
            else:
                self.keys.append(str(parts.pop(0)))
                self.annotation = (get_args(one) or (None, Any))[1]
                self.metadata = []

    def _enter(self, model: type[BaseModel], key: str) -> None:
        self.parent = model
        self.keys.append(key)
        field = model.model_fields.get(key)
        self.annotation = field.annotation if field else Any
        self.metadata = field.metadata if field else []

    def _choose(self, members: list[Any], tag: str, further: bool) -> None:
        """Follow the member that a tag of pydantic's names; all are named to the user."""
        for member in members:
            fields = getattr(member, "model_fields", {})
            if any(tag in get_args(field.annotation) for field in fields.values()):
                self.annotation = member
        self.contains = further and tag.startswith("list")

    @property
    def known(self) -> list[str]:
        """The keys that may stand there."""
        return list(self.parent.model_fields)

    @property
    def choices(self) -> list[str]:
        """The words that may stand there."""
        return [
            str(word)
            for member in kinds(self.annotation)
            if get_origin(member) is Literal
            for word in get_args(member)
        ]

    @property
    def expected(self) -> str:
        """What may stand there, in words."""
        return expected(self.annotation, self.metadata)


def expected(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Return what values an annotation allows, in words."""
    members = kinds(annotation)
    if all(isinstance(one, type) and issubclass(one, BaseModel) for one in members):
        if len(members) == 1:
            return f"a mapping with some of {', '.join(members[0].model_fields)}"
        return f"a mapping with law: {either([law_of(one) for one in members])}"
    said: list[str] = []
    for one in members:
        inner = get_args(one)
        if one is bool:
            said += ["true", "false"]
        elif get_origin(one) is Literal:
            said += map(str, inner)
        elif get_origin(one) is list:
            bounds = [bound for field in get_args(inner[0])[1:] for bound in field.metadata]
            items = expected(inner[0], bounds).replace("a whole number", "whole numbers")
            said.append(f"a list of {items.replace('text', 'names')}")
        elif get_origin(one) is dict or one is dict:
            said.append("a mapping, {KEY: VALUE}")
        else:
            said.append(PLAIN.get(one, "another value"))
    limits = [
        f"{word} {getattr(bound, attribute):g}"
        for bound in metadata
        for kind, (attribute, word) in BOUNDS.items()
        if isinstance(bound, kind)
    ]
    if any(isinstance(bound, annotated_types.MinLen) for bound in metadata):
        limits.append("not empty")
    return f"{either(said)}{', ' if limits else ''}{' and '.join(limits)}"


def either(words: list[str]) -> str:
    """Join words by commas and an or."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def guess(key: str, known: Iterable[str], root: type[BaseModel]) -> str:
    """Return a question with the key that is like this one, here or at another level."""
    elsewhere = {
        inner: f"{outer}.{inner}"
        for outer, field in root.model_fields.items()
        for one in kinds(field.annotation)
        if isinstance(one, type) and issubclass(one, BaseModel)
        for inner in one.model_fields
    } | {outer: f"{outer} at the top level" for outer in root.model_fields}
    known = list(known)
    if key in elsewhere and key not in known:
        return f"did you mean {elsewhere[key]}? "
    return question(key, known)


def question(word: Any, candidates: Iterable[str]) -> str:
    """Return a question with the candidate that is like a word, if there is one."""
    folded = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(str(word).lower(), folded, n=1)
    return f"did you mean {folded[found[0]]}? " if found else ""


def shown(value: Any) -> str:
    """Return a value as YAML has it, or at least Python."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def kinds(annotation: Any) -> list[Any]:
    """Return the kinds of values that an annotation allows, None aside."""
    if isinstance(annotation, FieldInfo) or get_origin(annotation) is Annotated:
        return kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [
            member for one in get_args(annotation) if one is not type(None) for member in kinds(one)
        ]
    return [annotation]


def law_of(model: type[BaseModel]) -> str:
    """Return the word by which a mapping of several kinds says that it is this one."""
    return str(get_args(model.model_fields["law"].annotation)[0])
