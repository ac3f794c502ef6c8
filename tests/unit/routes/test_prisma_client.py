# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module for Node applications, run by Node itself with stand-ins for the packages that it needs."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._routes import plan, prisma
from ansible_collections.freight.pg_ha.plugins.module_utils._routes.model import Endpoint, Routes

NODE = shutil.which("node")
TESTS = pathlib.Path(__file__).with_name("prisma_client.test.mjs")
STAND_INS = {
    "pg": """
        class Client {
          constructor(options) { Object.assign(this, options) }
          async connect() {
            if (this.refuse) throw new Error('refused')
            this.connectedTo = this.port
          }
        }
        export default { Client }
    """,
    "@prisma/adapter-pg": "export class PrismaPg { constructor(config) { this.config = config } }",
}


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_the_module_does_in_node_what_it_says(tmp_path: pathlib.Path) -> None:
    for name, text in STAND_INS.items():
        folder = tmp_path / "node_modules" / name
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(json.dumps({"name": name, "type": "module", "main": "index.js"}), encoding="utf-8")
        (folder / "index.js").write_text(text, encoding="utf-8")
    (tmp_path / prisma.FILE).write_text(prisma.module_text("DATABASE_URL", "DATABASE_READ_URL"), encoding="utf-8")
    shutil.copy(TESTS, tmp_path)
    login = ["büro+1", "p@ss:/ w+rd", "my shop/ü"]
    routes = Routes(
        database=login[2],
        write=Endpoint(("lb1", "lb2"), 6432),
        read=Endpoint(("fe80::2",), 5001),
        authorities="",
        application_directory=str(tmp_path),
    )
    (tmp_path / "ca.crt").write_text("certificate", encoding="utf-8")
    given = {
        "GIVEN_URL": plan.url(routes, routes.write, login[0], plan.encode(login[1])),
        "GIVEN_HOSTS": json.dumps([{"host": host, "port": 6432} for host in ("lb1", "lb2")]),
        "GIVEN_LOGIN": json.dumps(login),
    }
    command = [str(NODE), "--test", "--test-reporter=tap", TESTS.name]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **given}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert "# fail 0" in done.stdout and "# skipped 0" in done.stdout


def test_it_reads_the_declared_variables() -> None:
    text = prisma.module_text("SHOP_URL", "SHOP_READ_URL")
    assert "open(PrismaClient, environment.SHOP_URL, options)" in text and "open(PrismaClient, environment.SHOP_READ_URL, options)" in text
    assert "@WRITE@" not in text and "@READ@" not in text
