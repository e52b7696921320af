"""Reading a profile from YAML."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dwcp_training.profiles.errors import ProfileError, from_validation, nearest
from dwcp_training.profiles.models import Profile

_FOLDER = Path(__file__).parent


def profile_names() -> tuple[str, ...]:
    """Names of the profiles that come with this package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def load_profile(name: str | Path) -> Profile:
    """Reads a profile by the name of one that comes with this package, or by the path of a ``.yaml`` file.

    Raises:
        ProfileError: no such profile, not YAML, an unknown, missing or repeated key, or a value that cannot be.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if str(name) not in profile_names():
            raise ProfileError("profile", f"there is no profile {str(name)!r}.", nearest(name, profile_names()))
        path = _FOLDER / f"{name}.yaml"
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except OSError as error:
        raise ProfileError("profile", f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ProfileError("profile", f"{path} is not UTF-8 text.") from error
    except yaml.YAMLError as error:
        raise ProfileError("profile", f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ProfileError("profile", f"{path} must hold keys and values, not {type(content).__name__}.")
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        raise from_validation(error, Profile, path.name) from error


def profile_yaml(profile: Profile) -> str:
    """A profile as YAML, defaults written out; `load_profile` reads it back as an equal one."""
    return yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key cannot be there twice and ``1e-3`` is a number (YAML 1.1 takes it for text)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise ProfileError(
                    str(key.value), f"this key is there twice (line {key.start_mark.line + 1}).", "Remove one."
                )
            seen.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
