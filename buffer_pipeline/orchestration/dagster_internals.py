"""Every import from Dagster's private modules, each with its reason.

Dagster may move or change a private name in any release. The rest of the package imports these names from
here, so this file is the one to check after an update.
"""

# The type of a storage's configuration. `storage.py` implements Dagster's interface for a storage class, and
# the types of that interface are not public.
from dagster._config.config_schema import UserConfigSchema

# The error of a code server that does not answer. `launcher.py` must tell it from other errors.
from dagster._core.errors import DagsterUserCodeUnreachableError

# The result of a launcher's health check. `launcher.py` returns it and `health.py` reads it.
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus

# The status of a schedule or sensor in the instance. The public enums have only the default status.
from dagster._core.scheduler.instigation import InstigatorStatus

# The stored outcomes of a check. The instance returns them, but their types are not public.
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

# The tag in which Dagster's default launcher notes the address of the code server that has the run.
from dagster._core.storage.tags import GRPC_INFO_TAG

# The question to a code server which runs it has. Dagster has no public way to ask it.
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import GetCurrentRunsResult

# The data from which Dagster builds a storage again, the second type of the storage interface.
from dagster._serdes import ConfigurableClassData

__all__ = [
    "GRPC_INFO_TAG",
    "AssetCheckExecutionRecord",
    "AssetCheckExecutionRecordStatus",
    "CheckRunHealthResult",
    "ConfigurableClassData",
    "DagsterGrpcClient",
    "DagsterUserCodeUnreachableError",
    "GetCurrentRunsResult",
    "InstigatorStatus",
    "UserConfigSchema",
    "WorkerStatus",
]
