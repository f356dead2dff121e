"""Configuration of workers, from a TOML file and from `FAILBACK_…` variables (`__` between levels,
and the variable wins). Secrets are named, not written: a variable or a file that holds them."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from models.errors import InvalidConfiguration
from models.units import ByteSize, Seconds


class Section(BaseModel):
    """A part of the configuration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class AzureSection(Section):
    """How to reach Azure. Who we are is `DefaultAzureCredential`'s matter."""

    base_url: str = Field(
        default="https://management.azure.com", description="Azure Resource Manager."
    )
    credential_scopes: list[str] = Field(default=[], description="Token scopes.")
    ca_file: str | None = Field(default=None, description="CA file; the system's store if none.")
    proxy: str | None = Field(default=None, description="HTTPS proxy URL.")
    polling_interval: Seconds = Field(default=2.0, description="Pause between polls.")
    grant_duration: Seconds = Field(
        default=12 * 3600.0, description="How long a read grant lasts before it is renewed."
    )


class HyperVSection(Section):
    """One Hyper-V host."""

    endpoint: str = Field(description="WinRM address, for example https://hv01.example:5986/wsman.")
    username: str
    password_env: str | None = Field(default=None, description="Variable that holds the password.")
    password_file: Path | None = Field(default=None, description="File that holds the password.")
    transport: Literal["ntlm", "kerberos"] = "ntlm"
    ca_file: str | None = None
    movers: dict[str, str] = Field(
        default={}, description="Mover name to its machine's name on this host, where they differ."
    )
    mover_controller: int = Field(
        default=0, ge=0, le=3, description="SCSI controller of the movers that disks go to."
    )
    first_location: int = Field(
        default=1, ge=0, le=63, description="First location on it that may be used."
    )
    slots: int = Field(default=63, ge=1, le=64, description="How many locations may be used.")
    connections: int = Field(
        default=4, ge=1, le=30, description="Scripts at once on this host; WinRM allows 30 shells."
    )
    created_disk_format: Literal["vhdx", "vhd"] = Field(
        default="vhdx", description="Format of a created machine's disks."
    )
    created_disk_fixed: bool = Field(
        default=False, description="Allocate created disks whole; slow, it writes every byte."
    )
    created_secure_boot: bool = Field(
        default=True, description="Secure boot for created machines of generation 2."
    )

    def password(self) -> str:
        """The password, read from where it is kept.

        Raises:
            InvalidConfiguration: Neither place holds one.
        """
        if self.password_file is not None:
            try:
                return self.password_file.read_text().strip()
            except OSError as error:
                raise InvalidConfiguration(
                    f"The password file {self.password_file} cannot be read: {error.strerror}."
                ) from error
        if self.password_env and os.environ.get(self.password_env):
            return os.environ[self.password_env]
        if self.transport == "kerberos":
            return ""
        raise InvalidConfiguration(
            f"No password for {self.endpoint}.",
            hint="Set password_file, or password_env and that variable.",
        )


class MoverSection(Section):
    """The data plane of one mover."""

    state_dir: Path = Field(
        default=Path("/var/lib/failback"), description="Journal, ledger and manifests."
    )
    device_dir: Path = Field(
        default=Path("/dev/failback"), description="Where attached disks appear, by slot."
    )
    device_timeout: Seconds = Field(
        default=60.0, description="How long an attached disk may take to appear."
    )
    threads: int = Field(default=4, ge=1, le=32, description="Copying threads per disk.")
    in_flight: ByteSize = Field(
        default=32 * 2**20, description="Bytes in flight per disk, at most."
    )
    lock_timeout: Seconds = Field(
        default=60.0, description="How long an older writer may take to let a disk go."
    )
    max_copies: int = Field(default=8, ge=1, le=64, description="Disks copied side by side.")


class HealthSection(Section):
    """Health checks after boot."""

    script_dir: Path | None = Field(default=None, description="Scripts that specs may name.")
    ca_file: str | None = Field(default=None, description="CA file for HTTPS checks.")


class WorkerSettings(BaseSettings):
    """Everything a worker needs besides the Temporal connection, which `TEMPORAL_…` and the CLI's
    own TOML profiles describe."""

    model_config = SettingsConfigDict(
        env_prefix="FAILBACK_", env_nested_delimiter="__", extra="ignore"
    )

    azure: AzureSection = AzureSection()
    hyperv: dict[str, HyperVSection] = {}
    mover: MoverSection = MoverSection()
    health: HealthSection = HealthSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Variables win over the file, which comes in as the initial values."""
        return env_settings, init_settings


def load_settings(path: Path | None) -> WorkerSettings:
    """Read the configuration file, if there is one, and the variables.

    Raises:
        InvalidConfiguration: The file cannot be read, or a value is wrong; the message names it.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except OSError as error:
            raise InvalidConfiguration(f"{path} cannot be read: {error.strerror}.") from error
        except tomllib.TOMLDecodeError as error:
            raise InvalidConfiguration(f"{path} is not TOML: {error}.") from error
    unknown = set(values) - set(WorkerSettings.model_fields)
    if unknown:
        raise InvalidConfiguration(f"{path} has unknown sections: {', '.join(sorted(unknown))}.")
    try:
        return WorkerSettings(**values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(p) for p in issue['loc'])}: {issue['msg']}" for issue in error.errors()
        )
        raise InvalidConfiguration(
            f"The configuration is wrong: {problems}.", hint="See docs/configuration.md."
        ) from error
