"""Which virtual hardware can the engine pretend to run on? engines/simulated/profiles.yaml, read strictly."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pytest_kitt import shipped
from pytest_kitt.cards import read_yaml
from pytest_kitt.errors import UserError, nearest
from pytest_kitt.mistakes import explained

PROFILES = shipped.ENGINES / "simulated" / "profiles.yaml"


class Profile(BaseModel):
    """One virtual machine.

    Attributes:
        gpu: name of its GPUs.
        count: how many.
        memory_gib: of each.
        arguments: values of the engine's arguments that the user does not give.

    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    gpu: str
    count: int = Field(ge=1)
    memory_gib: int = Field(ge=1)
    arguments: dict[str, str | int | float]

    def labels(self, name: str) -> dict[str, str]:
        """How it is reported."""
        return {"profile": name, "gpu": self.gpu, "count": str(self.count), "memory_gib": str(self.memory_gib)}


def load(name: str) -> Profile:
    """The profile; UserError names the nearest when there is none, or says what is wrong in the file."""
    profiles = read_yaml(PROFILES)
    if name not in profiles:
        raise UserError(f"{name!r} is no profile; {nearest(name, profiles)}")
    try:
        return Profile.model_validate(profiles[name])
    except ValidationError as error:
        raise UserError(explained(PROFILES, error, Profile, (name,))) from error
