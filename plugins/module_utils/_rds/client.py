# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Amazon RDS by boto3: the only place that speaks to it, and where its errors become ours."""

from __future__ import annotations

import os
import traceback
import typing as t
from contextlib import contextmanager

from ansible.module_utils.basic import missing_required_lib

from .._core.errors import ClientError, PgHaError, PlanError, UsageError
from .._core.outcome import Outcome, finish
from .model import ENGINE, Described, Offer, choose_version

try:
    import boto3
    import botocore.exceptions
    from botocore.config import Config

    HAS_BOTO3, BOTO3_IMPORT_ERROR = True, None
except ImportError:  # said with the traceback by finish_with
    HAS_BOTO3, BOTO3_IMPORT_ERROR = False, traceback.format_exc()

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 60, 8


def aws_argument_spec() -> dict[str, t.Any]:
    """The options that every module with Amazon RDS shares (doc fragment ``aws``)."""
    return {"region": {"type": "str"}, "profile": {"type": "str"}, "endpoint_url": {"type": "str"}, "ca_bundle": {"type": "path"}}


_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "KMSKeyNotAccessibleFault")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
_UNKNOWN_KEY = ("InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "AuthFailure")
_THROTTLED = ("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException")


def explain(operation: str, code: str, message: str, service: str = "rds") -> PgHaError:
    """One sentence for what the service has answered.

    :param operation: of the API, e.g. ``ModifyDBInstance``
    :param service: as permissions name it
    """
    said = " ".join(message.split()).rstrip(".")
    if code in _DENIED:
        return ClientError(
            f"AWS does not permit {operation} (action {service}:{operation}) to these credentials: {said}. Attach the policy that docs/rds.md lists."
        )
    if code in _EXPIRED:
        return ClientError(f"The credentials for AWS have expired, so {operation} was refused: log in again, and run the same again.")
    if code in _UNKNOWN_KEY:
        return ClientError(f"AWS does not know these credentials, so {operation} was refused: {said}.")
    if code in _THROTTLED:
        return ClientError(f"AWS goes on throttling {operation}: wait some minutes and run the same again.")
    if code.startswith("InvalidDB") and code.endswith("State"):
        return PlanError(f"{operation} is refused in the state that it is in: {said}. Wait until it is available and run the same again.")
    return ClientError(f"AWS refuses {operation}: {said} ({code}).")


@contextmanager
def translated(operation: str, region: str | None, service: str = "rds") -> t.Iterator[None]:
    """Botocore's exceptions become ours.

    :param service: as permissions name it
    :raises PgHaError: for every one of them
    """
    try:
        yield
    except botocore.exceptions.ClientError as error:
        said = error.response.get("Error", {})
        raise explain(operation, said.get("Code", "no code"), said.get("Message", "no message"), service) from error
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as error:
        raise UsageError("There are no credentials for AWS: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile.") from error
    except (botocore.exceptions.SSOTokenLoadError, botocore.exceptions.TokenRetrievalError) as error:
        raise ClientError("The login for AWS has expired: run aws sso login, and run the same again.") from error
    except botocore.exceptions.ParamValidationError as error:
        raise UsageError(f"{operation} was not sent, because a value is none that it takes: {' '.join(str(error).split())}") from error
    except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as error:
        raise ClientError(f"No answer to {operation} in region {region}: {' '.join(str(error).split())}") from error
    except botocore.exceptions.BotoCoreError as error:
        raise ClientError(f"{operation} failed before it reached AWS: {' '.join(str(error).split())}") from error


def open_session(params: dict[str, t.Any]) -> tuple[t.Any, str]:
    """A session of boto3 and its region, from a module's options and the environment, as all of AWS's tools read it; boto3 alone does not read AWS_REGION.

    :raises UsageError: no region, one that does not exist, or an unknown profile
    """
    try:
        session = boto3.session.Session(profile_name=params["profile"], region_name=params["region"] or os.environ.get("AWS_REGION"))
    except botocore.exceptions.ProfileNotFound as error:
        raise UsageError(f"profile {params['profile']} is not in AWS's configuration on this host: name one that is.") from error
    region = session.region_name
    if not region:
        raise UsageError("No region of AWS is given: set region, or AWS_REGION.")
    known = [name for partition in session.get_available_partitions() for name in session.get_available_regions("rds", partition_name=partition)]
    if region not in known:
        raise UsageError(f"region {region!r} is none of AWS's that have RDS: give one like eu-central-1, or a boto3 that knows it.")
    return session, region


class RdsClient:
    """The service in one region.

    :param read_only: raise on every write (check mode's second fence)
    """

    def __init__(self, rds: t.Any, region: str, read_only: bool = False) -> None:
        self._rds = rds
        self.region = region
        self._read_only = read_only

    @classmethod
    def open(cls, params: dict[str, t.Any], read_only: bool) -> RdsClient:
        """A client from a module's options and the environment.

        :raises UsageError: no region, one that does not exist, or an unknown profile
        """
        session, region = open_session(params)
        config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"mode": "standard", "total_max_attempts": ATTEMPTS})
        with translated("a client for RDS", region):
            rds = session.client("rds", endpoint_url=params["endpoint_url"], verify=params["ca_bundle"], config=config)
        return cls(rds, region, read_only)

    # --- reads ---------------------------------------------------------------------------------------------------------------------

    def _ask(self, operation: str, method: str, absent: str | None = None, **request: t.Any) -> t.Any:
        """One request; None when the service answers with the code ``absent``."""
        with translated(operation, self.region):
            try:
                return getattr(self._rds, method)(**request)
            except botocore.exceptions.ClientError as error:
                if absent is not None and error.response.get("Error", {}).get("Code") in (absent, f"{absent}Fault"):
                    return None
                raise

    def _pages(self, operation: str, method: str, key: str, **request: t.Any) -> list[dict[str, t.Any]]:
        """Everything that a request lists."""
        with translated(operation, self.region):
            return [one for page in self._rds.get_paginator(method).paginate(**request) for one in page[key]]

    def read_instance(self, identifier: str) -> dict[str, t.Any] | None:
        """Its description, None when there is none of that name."""
        answer = self._ask("DescribeDBInstances", "describe_db_instances", "DBInstanceNotFound", DBInstanceIdentifier=identifier)
        return None if answer is None else answer["DBInstances"][0]

    def read_offer(self, version: str, instance_class: str | None, subnet_group: str | None, parameter_group: str | None) -> Offer:
        """What the service offers for these.

        :param version: whole or major; of the latter the newest minor one counts
        """
        versions = self._pages("DescribeDBEngineVersions", "describe_db_engine_versions", "DBEngineVersions", Engine=ENGINE)
        chosen = choose_version(versions, version)
        options = []
        if chosen and instance_class:
            options = self._pages(
                "DescribeOrderableDBInstanceOptions", "describe_orderable_db_instance_options", "OrderableDBInstanceOptions",
                Engine=ENGINE, EngineVersion=chosen, DBInstanceClass=instance_class,
            )  # fmt: skip
        group = self.read_parameter_group(parameter_group) if parameter_group else None
        return Offer(versions, options, self.read_zones(subnet_group), {parameter_group: group["DBParameterGroupFamily"]} if parameter_group and group else {})

    def read_zones(self, subnet_group: str | None) -> list[str]:
        """Zones of a subnet group's subnets; [] when there is no such group, or none was named."""
        if not subnet_group:
            return []
        answer = self._ask("DescribeDBSubnetGroups", "describe_db_subnet_groups", "DBSubnetGroupNotFound", DBSubnetGroupName=subnet_group)
        return [] if answer is None else [subnet["SubnetAvailabilityZone"]["Name"] for subnet in answer["DBSubnetGroups"][0]["Subnets"]]

    def read_parameter_group(self, name: str) -> dict[str, t.Any] | None:
        """Its description without parameters, None when there is none of that name."""
        answer = self._ask("DescribeDBParameterGroups", "describe_db_parameter_groups", "DBParameterGroupNotFound", DBParameterGroupName=name)
        return answer["DBParameterGroups"][0] if answer and answer["DBParameterGroups"] else None

    def read_parameters(self, group: str) -> list[dict[str, t.Any]]:
        """All parameters of a group, those set by it and those of its family."""
        return self._pages("DescribeDBParameters", "describe_db_parameters", "Parameters", DBParameterGroupName=group)

    def read_catalogue(self, family: str) -> list[dict[str, t.Any]]:
        """All parameters of a family, with the engine's own values."""
        with translated("DescribeEngineDefaultParameters", self.region):
            pages = self._rds.get_paginator("describe_engine_default_parameters").paginate(DBParameterGroupFamily=family)
            return [one for page in pages for one in page["EngineDefaults"]["Parameters"]]

    def read_users_of(self, parameter_group: str) -> list[dict[str, t.Any]]:
        """The instances that use a parameter group."""
        instances = self._pages("DescribeDBInstances", "describe_db_instances", "DBInstances")
        return [one for one in instances if parameter_group in [group["DBParameterGroupName"] for group in one.get("DBParameterGroups", [])]]

    def read_tags(self, arn: str) -> list[dict[str, str]]:
        """The tags of anything, in the API's form."""
        return list(self._ask("ListTagsForResource", "list_tags_for_resource", ResourceName=arn)["TagList"])

    def read_snapshot(self, identifier: str) -> dict[str, t.Any] | None:
        """A snapshot's description, None when there is none of that name."""
        answer = self._ask("DescribeDBSnapshots", "describe_db_snapshots", "DBSnapshotNotFound", DBSnapshotIdentifier=identifier)
        return answer["DBSnapshots"][0] if answer and answer["DBSnapshots"] else None

    def read_snapshots(self, instance: str) -> list[dict[str, t.Any]]:
        """All snapshots of an instance."""
        return self._pages("DescribeDBSnapshots", "describe_db_snapshots", "DBSnapshots", DBInstanceIdentifier=instance)

    def read_events(self, instance: str, minutes: int) -> list[dict[str, t.Any]]:
        """What the service says has happened to an instance lately, oldest first."""
        found = self._pages("DescribeEvents", "describe_events", "Events", SourceIdentifier=instance, SourceType="db-instance", Duration=minutes)
        return sorted(found, key=lambda event: event["Date"])

    # --- writes --------------------------------------------------------------------------------------------------------------------

    def write(self, operation: str, method: str, request: Described) -> dict[str, t.Any]:
        """Send a request that changes something.

        :param operation: of the API, for messages; ``method`` is its name in boto3
        """
        if self._read_only:
            raise AssertionError(f"{operation} in check mode")
        return dict(self._ask(operation, method, **request))

    def keep_tags(self, arn: str, add: t.Mapping[str, str], remove: t.Sequence[str]) -> None:
        """Set tags and take others away."""
        if add:
            self.write("AddTagsToResource", "add_tags_to_resource", {"ResourceName": arn, "Tags": [{"Key": key, "Value": value} for key, value in add.items()]})
        if remove:
            self.write("RemoveTagsFromResource", "remove_tags_from_resource", {"ResourceName": arn, "TagKeys": list(remove)})


def finish_with(module: AnsibleModule, work: t.Callable[[RdsClient], Outcome], read_only: bool = False) -> None:
    """End a module with what its work on the service comes to.

    :param read_only: it never writes; nor does any in check mode
    """
    _need_boto3(module)
    finish(module, lambda: work(RdsClient.open(module.params, read_only or module.check_mode)))


def finish_in_session(module: AnsibleModule, work: t.Callable[[t.Any, str], Outcome]) -> None:
    """End a module with what its work comes to that is about a region, and asks another service than RDS."""
    _need_boto3(module)
    finish(module, lambda: work(*open_session(module.params)))


def _need_boto3(module: AnsibleModule) -> None:
    if not HAS_BOTO3:
        module.fail_json(msg=missing_required_lib("boto3"), exception=BOTO3_IMPORT_ERROR)
