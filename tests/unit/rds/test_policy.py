# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy in docs/rds.md, held against what the modules of role target_rds ask AWS for. No account is there that could say so."""

from __future__ import annotations

import ast
import functools
import json
import pathlib
import re
import typing as t

import ansible
import boto3
import botocore

ROOT = pathlib.Path(__file__).resolve().parents[3]
AMAZON = pathlib.Path(ansible.__file__).parents[1] / "ansible_collections" / "amazon" / "aws" / "plugins"
RDS = ROOT / "plugins" / "module_utils" / "_rds"
TASKS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "roles" / "target_rds" / "tasks").glob("*.yml")))
# Services that amazon.aws's plugins speak to, and what of it their own text does not name because a helper or a waiter does it.
THEIRS: dict[str, tuple[set[str], set[str]]] = {
    "modules/aws_caller_info": ({"sts", "iam"}, set()),
    "modules/ec2_security_group": ({"ec2", "sts"}, {"ec2:DescribeTags", "ec2:CreateTags", "ec2:DeleteTags"}),
    "modules/ec2_vpc_subnet_info": ({"ec2"}, set()),
    "modules/iam_role": ({"iam"}, {"iam:ListAttachedRolePolicies"}),
    "modules/rds_subnet_group": ({"rds"}, {"rds:ListTagsForResource", "rds:AddTagsToResource", "rds:RemoveTagsFromResource"}),
    "modules/route53": ({"route53"}, {"route53:GetChange"}),
    "lookup/secretsmanager_secret": ({"secretsmanager"}, set()),
}
# What they can do and the role does not have them do, beside deleting: other options of theirs, a function that is only called so, or a question whose
# refusal they pass over.
NOT_ASKED = {
    "iam:CreateInstanceProfile", "iam:ListAccountAliases", "iam:ListRolePolicies", "iam:PutRolePermissionsBoundary", "iam:UpdateRoleDescription",
    "route53:GetHostedZone", "secretsmanager:ListSecrets",
}  # fmt: skip
# What the service does in the caller's name when it makes or changes an instance, by the RDS User Guide and AWS's own definition of the resource.
BY_THE_SERVICE = {
    "ec2:DescribeAccountAttributes", "ec2:DescribeAvailabilityZones", "ec2:DescribeInternetGateways", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets",
    "ec2:DescribeVpcAttribute", "ec2:DescribeVpcs", "iam:CreateServiceLinkedRole", "iam:PassRole", "kms:CreateGrant", "kms:DescribeKey",
    "secretsmanager:CreateSecret", "secretsmanager:TagResource",
}  # fmt: skip


def statements() -> list[dict[str, t.Any]]:
    """Of the policy."""
    page = (ROOT / "docs" / "rds.md").read_text(encoding="utf-8").split("## What the operator's credentials need")[1]
    return list(json.loads(page.split("```json")[1].split("```")[0])["Statement"])


def permitted() -> set[str]:
    """All actions."""
    return {action for statement in statements() for action in statement["Action"]}


@functools.cache
def operations(service: str) -> dict[str, str]:
    """Of a service's API, by their names in boto3."""
    names = boto3.client(service, region_name="eu-central-1").meta.service_model.operation_names
    return {botocore.xform_name(name): name for name in names}


def words(tree: ast.AST) -> set[str]:
    """Names in a program, and texts that are one. Its documentation does not count."""
    names = (
        node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else node.value
        for node in ast.walk(tree)
        if isinstance(node, (ast.Name, ast.Attribute, ast.Constant))
    )
    return {name for name in names if isinstance(name, str)}


def parsed(path: pathlib.Path) -> ast.Module:
    """A program."""
    return ast.parse(path.read_text(encoding="utf-8"))


def ours() -> set[str]:
    """What the modules of this collection ask that the role uses: what they name, and what the client's methods name that they call."""
    used = [ROOT / "plugins" / "modules" / f"{name}.py" for name in set(re.findall(r"freight\.pg_ha\.(rds_\w+):", TASKS))]
    assert len(used) > 3
    methods = {node.name: words(node) for node in ast.walk(parsed(RDS / "client.py")) if isinstance(node, ast.FunctionDef)}
    named = set[str]().union(*(words(parsed(path)) for path in used))
    while more := set[str]().union(*(methods[name] for name in named & set(methods))) - named:
        named |= more
    found = {f"rds:{name}" for name in named & set(operations("rds").values())}
    return found | {f"pricing:{name}" for name in words(parsed(RDS / "prices.py")) & set(operations("pricing").values())}


def theirs() -> set[str]:
    """What amazon.aws's plugins ask that the role uses."""
    used = {f"modules/{name}" for name in re.findall(r"^\s+amazon\.aws\.(\w+):", TASKS, re.MULTILINE)}
    used |= {f"lookup/{name}" for name in re.findall(r"'amazon\.aws\.(\w+)'", TASKS)}
    found = set[str]()
    for plugin in used:
        services, hidden = THEIRS[plugin]
        text = words(parsed(AMAZON / f"{plugin}.py"))
        found |= hidden | {f"{service}:{name}" for service in services for method, name in operations(service).items() if method in text}
    return found


def test_what_is_asked_is_permitted() -> None:
    asked = {action for action in ours() | theirs() if not action.split(":")[1].startswith("Delete") or action == "ec2:DeleteTags"} - NOT_ASKED
    assert sorted((asked | BY_THE_SERVICE) - permitted()) == []


def test_nothing_is_permitted_that_does_not_exist_or_deletes() -> None:
    for action in permitted() - {"iam:PassRole"}:
        service, name = action.split(":")
        assert name in operations(service).values(), action
    assert [action for action in permitted() if ":Delete" in action] == ["ec2:DeleteTags"]


def test_of_our_own_nothing_is_permitted_that_is_not_asked() -> None:
    assert sorted(action for action in permitted() - ours() - theirs() if action.startswith(("rds:", "pricing:"))) == []


def test_an_instance_may_be_made_of_all_that_it_is_made_of() -> None:
    """The service asks for each of them, the engine's own option group among them, which nobody names."""
    (resources,) = (statement["Resource"] for statement in statements() if "rds:CreateDBInstance" in statement["Action"])
    assert {resource.split(":")[5] for resource in resources} == {"db", "og", "pg", "subgrp"}
    assert "arn:aws:rds:REGION:ACCOUNT:og:default*" in resources
