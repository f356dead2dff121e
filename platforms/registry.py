"""Which platform serves which spec: the only place that knows the platforms' names."""

from __future__ import annotations

from models.errors import InvalidConfiguration
from models.spec import FailbackSpec
from platforms.base import CloudPlatform, OnPremisesPlatform


class Platforms:
    """The platforms that a worker was configured for.

    Args:
        cloud: The cloud that machines come from.
        on_premises: Hypervisor platforms by their name in specs.
    """

    def __init__(self, cloud: CloudPlatform, on_premises: dict[str, OnPremisesPlatform]) -> None:
        self.cloud = cloud
        self._on_premises = on_premises

    def on_premises(self, spec: FailbackSpec) -> OnPremisesPlatform:
        """The hypervisor platform of a spec.

        Raises:
            InvalidConfiguration: The worker knows no host of that platform.
        """
        name = spec.on_premises.platform
        if name not in self._on_premises:
            raise InvalidConfiguration(
                f"The control worker has no {name} host configured.",
                hint=f"Add a [{name}.<host>] section to its configuration.",
            )
        return self._on_premises[name]
